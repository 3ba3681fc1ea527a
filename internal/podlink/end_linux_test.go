package podlink_test

import (
	"net/netip"
	"slices"
	"testing"

	"weft/internal/ether"
	"weft/internal/nettest/labtest"
	"weft/internal/podlink"
)

// TestEnd: a pod end is seen as the pod has changed it: its MAC, its addresses, and interfaces that send through it.
func TestEnd(t *testing.T) {
	h := newHost(t)
	p := labtest.AddPod(t, h, "p")
	ip := netip.MustParseAddr("10.32.0.2")
	if _, err := (inside{h}).Attach(t.Context(), podlink.Spec{
		Netns: p.Path(), Ifname: "eth0", Bridge: "weave", HostName: "vweftp", Addresses: []podlink.Address{{Prefix: netip.PrefixFrom(ip, 12)}},
	}); err != nil {
		t.Fatal(err)
	}
	mac := ether.FromIP(ip)
	check := func(what string, lower bool, want ...string) {
		t.Helper()
		var end podlink.End
		if err := h.Do(func() error {
			ports, err := podlink.Ports("weave")
			if err == nil {
				end, err = ports[0].End()
			}
			return err
		}); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		var addrs []string
		for _, a := range end.Addrs {
			if !a.Is6() { // it may have a link-local one
				addrs = append(addrs, a.String())
			}
		}
		slices.Sort(addrs)
		if end.MAC != mac || end.Lower != lower || !slices.Equal(addrs, want) {
			t.Errorf("%s: %+v; want %s, addresses %v, lower %t", what, end, mac, want, lower)
		}
	}
	ipIn := func(args ...string) { labtest.Run(t, p.Space, append([]string{"ip"}, args...)...) }
	check("attached", false, "10.32.0.2")
	ipIn("addr", "add", "10.32.0.9/32", "dev", "eth0")
	ipIn("addr", "add", "10.99.0.1/32", "dev", "lo")
	check("with further addresses", false, "10.32.0.2", "10.32.0.9", "10.99.0.1")
	ipIn("addr", "del", "10.32.0.9/32", "dev", "eth0")
	ipIn("addr", "del", "10.99.0.1/32", "dev", "lo")
	ipIn("link", "add", "inner", "type", "veth", "peer", "name", "other")
	check("with a pair of its own", false, "10.32.0.2")
	ipIn("link", "add", "upper", "link", "eth0", "type", "macvlan")
	check("with a macvlan", true, "10.32.0.2")
	ipIn("link", "del", "upper")
	ipIn("link", "add", "br0", "type", "bridge")
	check("with a bridge", false, "10.32.0.2")
	ipIn("link", "set", "eth0", "master", "br0")
	check("in a bridge", true, "10.32.0.2")
	ipIn("link", "set", "eth0", "nomaster")
	mac = ether.Addr{2, 0, 0, 0, 0, 9}
	ipIn("link", "set", "eth0", "address", mac.String())
	check("with another MAC", false, "10.32.0.2")
}
