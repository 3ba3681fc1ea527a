package leases

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"weft/internal/ether"
	"weft/internal/guard"
	"weft/internal/health"
	"weft/internal/podlink"
)

// TestFits: a pod that uses no more than a guard lets it is bound while it runs.
func TestFits(t *testing.T) {
	mac := ether.Addr{2, 0, 0, 0, 0, 1}
	list := func(texts ...string) (out []netip.Addr) {
		for _, text := range texts {
			out = append(out, netip.MustParseAddr(text))
		}
		return out
	}
	four, both := list("10.32.0.2"), list("10.32.0.2", "fd32::2")
	for _, c := range []struct {
		name   string
		leased []netip.Addr
		allow  string
		end    podlink.End
		want   string // part of the error; empty: it fits
	}{
		{"as attached", both, "", podlink.End{MAC: mac, Addrs: list("10.32.0.2", "fd32::2", "fe80::ff:fe00:1")}, ""},
		{"fewer addresses", both, "", podlink.End{MAC: mac}, ""},
		{"a further address", four, "", podlink.End{MAC: mac, Addrs: list("10.32.0.2", "10.32.0.9")}, "10.32.0.9"},
		{"an allowed address", four, "10.32.0.8/30", podlink.End{MAC: mac, Addrs: list("10.32.0.2", "10.32.0.9")}, ""},
		{"a private link-local address", both, "", podlink.End{MAC: mac, Addrs: list("fd32::2", "fe80::1234")}, "fe80::1234"},
		{"an unused link-local address", four, "", podlink.End{MAC: mac, Addrs: list("10.32.0.2", "fe80::1234")}, ""},
		{"IPv6 from a router", four, "", podlink.End{MAC: mac, Addrs: list("10.32.0.2", "2001:db8::2")}, "2001:db8::2"},
		{"a link-local address of IPv4", four, "", podlink.End{MAC: mac, Addrs: list("169.254.0.2")}, "169.254.0.2"},
		{"a virtual machine", four, "", podlink.End{MAC: mac, Lower: true}, "virtual machine"},
		{"no MAC", four, "", podlink.End{}, "no MAC"},
		{"a group", four, "", podlink.End{MAC: ether.Addr{1}}, "no MAC"},
	} {
		p := guard.Port{Link: "vwefta", MAC: c.end.MAC, Addrs: c.leased}
		if c.allow != "" {
			p.Allow = []netip.Prefix{netip.MustParsePrefix(c.allow)}
		}
		err := fits(c.end, p)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

// TestUnguarded: pods without a guard are one condition, and a guard that may still be requested is no reason for it.
func TestUnguarded(t *testing.T) {
	var u unguarded
	if found := u.findings(time.Now()); len(found) > 0 {
		t.Errorf("at first: %+v", found)
	}
	u.note("vweftb", unguardedPod{owner: "cni/weft/b/eth0", why: errors.New("not requested"), grace: true})
	u.note("vwefta", unguardedPod{why: errors.New("no lease")})
	text := func(later time.Duration) string {
		t.Helper()
		found := u.findings(time.Now().Add(later))
		if len(found) != 1 || found[0].Code != health.PodsUnguarded || found[0].Remedy == "" {
			t.Fatalf("after %s: %+v", later, found)
		}
		return found[0].Text
	}
	if got := text(0); !strings.Contains(got, "vwefta (no lease)") || strings.Contains(got, "vweftb") {
		t.Errorf("at once: %q", got)
	}
	if got := text(requestGrace); !strings.Contains(got, "vweftb of cni/weft/b/eth0 (not requested)") {
		t.Errorf("after the grace: %q", got)
	}
	u.retain(func(string) bool { return false })
	if found := u.findings(time.Now()); len(found) > 0 {
		t.Errorf("after all are gone: %+v", found)
	}
}
