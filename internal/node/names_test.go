package node

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/controlplane"
	"weft/internal/dns"
	"weft/internal/hint"
	"weft/internal/leases/holder"
	"weft/internal/peer"
	"weft/internal/settings"
)

// namesOf returns the names of a node with the default ranges.
func namesOf(t *testing.T) requestedNames {
	t.Helper()
	r, err := dns.NewRegistry(dns.RegistryConfig{Self: peer.ID{1}, Domain: settings.DefaultDNSDomain})
	if err != nil {
		t.Fatal(err)
	}
	return requestedNames{names: names{r, goodConfig(), controlplane.NewMembers(peer.ID{1}, "self")}}
}

// TestExternalNames: an address outside the ranges is named only if that is meant, and only one that means the same host everywhere.
func TestExternalNames(t *testing.T) {
	n := namesOf(t)
	for _, tt := range []struct {
		ip       string
		external bool
		advice   string // part of the hint of the refusal; empty: none
	}{
		{"10.32.0.9", false, ""}, {"::ffff:10.32.0.9", false, ""}, {"10.32.0.9", true, ""}, {"192.0.2.7", true, ""}, {"2001:db8::7", true, ""},
		{"192.0.2.7", false, "--external"}, {"127.0.0.1", true, "other hosts reach it"}, {"fe80::1", true, "other hosts reach it"},
		{"0.0.0.0", true, "of a host"}, {"224.0.0.1", true, "of a host"},
	} {
		err := n.AddName(api.NameRequest{Name: "db", IPs: []netip.Addr{netip.MustParseAddr(tt.ip)}, External: tt.external})
		refusal, refused := errors.AsType[*hint.Error](err)
		switch {
		case tt.advice == "" && err != nil:
			t.Errorf("%s, external %v: %v", tt.ip, tt.external, err)
		case tt.advice != "" && (!refused || refusal.Kind != hint.Invalid || !strings.Contains(refusal.Hint, tt.advice)):
			t.Errorf("%s, external %v: %v, want a hint with %q", tt.ip, tt.external, err, tt.advice)
		}
	}
	if got := n.NamesAt(netip.MustParseAddr("192.0.2.7")); len(got) != 1 || got[0].Name != "db" {
		t.Errorf("names at the external address: %+v", got)
	}
}

// TestNameSources: a name says where it comes from. The names of other nodes are theirs.
func TestNameSources(t *testing.T) {
	n := namesOf(t)
	other, err := dns.NewRegistry(dns.RegistryConfig{Self: peer.ID{2}, Domain: settings.DefaultDNSDomain})
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.MustParseAddr("10.32.0.9")
	if err := errors.Join(other.Add("far", "netns:/run/netns/q/eth0", addr), n.registry.Merge(other.State())); err != nil {
		t.Fatal(err)
	}
	want := map[string]api.NameSource{"far": api.NameFromNode}
	for owner, source := range map[string]api.NameSource{
		"netns:/run/netns/p/eth0": api.NameFromAttach, "netns:/proc/7/ns/net/eth0": api.NameFromAttach,
		"cni/weft/abc/eth0": api.NameFromContainer,
		"docker/net/abc":    api.NameFromDocker, "docker/02:00:00:00:00:01": api.NameFromDocker,
		"vm1": api.NameFromOwner, "weft:dns": api.NameFromAdd,
	} {
		name := string(source) + "-" + strings.Trim(strings.Map(func(r rune) rune {
			if r == '/' || r == ':' {
				return '-'
			}
			return r
		}, owner), "-")
		if want[name] = source; n.Add(name, holder.Parse(owner), addr) != nil {
			t.Errorf("%s was refused", name)
		}
	}
	for _, doc := range n.AllNames() {
		if doc.Source != want[doc.Name] {
			t.Errorf("%s of %s: source %q, want %q", doc.Name, doc.Owner, doc.Source, want[doc.Name])
		}
		delete(want, doc.Name)
	}
	if len(want) > 0 {
		t.Errorf("not listed: %v", want)
	}
}

// TestLeavingNodeHasNoNames: a node that leaves removes all its names, those that are withdrawn included.
func TestLeavingNodeHasNoNames(t *testing.T) {
	n := namesOf(t)
	addr, pod := netip.MustParseAddr("10.32.0.9"), holder.ForNamespace("/run/netns/p", "eth0")
	if err := errors.Join(n.Add("web", pod, addr), n.Add("db", holder.ForNames(), addr)); err != nil {
		t.Fatal(err)
	}
	n.Withdraw(pod)
	if err := n.removeOwn(); err != nil || len(n.registry.Own()) > 0 {
		t.Errorf("%v; left: %v", err, n.registry.Own())
	}
}
