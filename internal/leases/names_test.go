package leases_test

import (
	"net/netip"
	"slices"
	"testing"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/leases"
)

// TestNamesOfAnOwner: a client names addresses that are leased to an owner, and no others. The names end with the leases, and a client
// removes those of its owner only.
func TestNamesOfAnOwner(t *testing.T) {
	b := newBench(t)
	addrs := map[string]netip.Addr{}
	for _, owner := range []string{"docker/net/one", "two"} {
		leases, err := b.Allocate(t.Context(), api.AddressRequest{Owner: owner})
		if err != nil {
			t.Fatal(err)
		}
		addrs[owner] = leases[0].IP.Addr()
	}
	one, two := addrs["docker/net/one"], addrs["two"]
	for _, in := range []api.NameRequest{
		{Name: "Web", IPs: []netip.Addr{netip.AddrFrom16(one.As16())}, Owner: "docker/net/one"},
		{Name: "db", IPs: []netip.Addr{two}, Owner: "two"},
	} {
		if err := b.AddName(in); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.names.addrs; !slices.Equal(got["web"], []netip.Addr{one}) || !slices.Equal(got["db"], []netip.Addr{two}) {
		t.Errorf("names %v, want web at %s and db at %s", got, one, two)
	}
	for what, want := range map[string]struct {
		err  error
		kind hint.Kind
	}{
		"an address of another owner": {b.AddName(api.NameRequest{Name: "x", IPs: []netip.Addr{two}, Owner: "docker/net/one"}), hint.Refused},
		"an unknown owner":            {b.AddName(api.NameRequest{Name: "x", IPs: []netip.Addr{two}, Owner: "none"}), hint.NotFound},
		"the bridge":                  {b.AddName(api.NameRequest{Name: "x", IPs: []netip.Addr{two}, Owner: "weft:expose"}), hint.Invalid},
		"the operator":                {b.AddName(api.NameRequest{Name: "x", IPs: []netip.Addr{two}, Owner: "weft:dns"}), hint.Invalid},
		"a name of another owner":     {b.RemoveName(api.NameRequest{Name: "db", Owner: "docker/net/one"}), hint.NotFound},
		"another address":             {b.RemoveName(api.NameRequest{Name: "db", IPs: []netip.Addr{one}, Owner: "two"}), hint.NotFound},
		"a name of the daemon":        {b.RemoveName(api.NameRequest{Name: "db", Owner: "weft:dns"}), hint.Invalid},
		"not a name":                  {b.RemoveName(api.NameRequest{Name: "!", Owner: "two"}), hint.Invalid},
	} {
		wantKind(t, what, want.err, want.kind)
	}
	if err := b.RemoveName(api.NameRequest{Name: "DB", Owner: "two"}); err != nil {
		t.Error(err)
	}
	if err := b.Release("docker/net/one", netip.Addr{}); err != nil {
		t.Error(err)
	}
	if len(b.names.names) != 0 {
		t.Errorf("names %v, want none", b.names.addrs)
	}
}

// TestNameOfANewPodStays: a name that is given while stale names are looked for stays, as its lease is older than it; a name without a
// lease ends.
func TestNameOfANewPodStays(t *testing.T) {
	b := newBench(t)
	if _, err := b.Join(t.Context(), api.JoinRequest{Owner: "first"}); err != nil { // divides the range
		t.Fatal(err)
	}
	in := api.AttachRequest{Netns: "/run/netns/p", Ifname: "eth0", Hostname: "web"}
	b.names.onHeld = func() {
		b.names.onHeld = nil
		if _, err := b.Attach(t.Context(), in); err != nil {
			t.Error(err)
		}
	}
	leases.EndStaleNames(b.Manager)
	if len(b.names.addrs["web"]) != 1 {
		t.Errorf("names %v, want that of the new pod", b.names.addrs)
	}
	if err := b.ipam.Release("netns:/run/netns/p/eth0", b.names.addrs["web"][0]); err != nil {
		t.Fatal(err)
	}
	leases.EndStaleNames(b.Manager)
	if len(b.names.names) != 0 {
		t.Errorf("names %v, want none without a lease", b.names.addrs)
	}
}
