package podlink_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/internal/nettest/labtest"
	"weft/internal/podlink"
)

// TestReroute: the gateways of a pod are found and replaced without its path, for both families; a default route through another
// interface stays.
func TestReroute(t *testing.T) {
	h := newHost(t)
	p := labtest.AddPod(t, h, "p")
	mustAttach(t, h, podSpec(p, 2))
	labtest.Run(t, p.Space, "ip", "link", "add", "other", "type", "veth", "peer", "name", "other2")
	labtest.Run(t, p.Space, "ip", "link", "set", "other", "up")
	labtest.Run(t, p.Space, "ip", "route", "add", "default", "via", "203.0.113.1", "dev", "other", "onlink", "metric", "50")
	ports := []podlink.Port{onlyPort(t, h)}
	gateways := func() (addrs []string) {
		_ = h.Do(func() error {
			found, hidden := podlink.Gateways(ports)
			if len(hidden) > 0 {
				t.Errorf("hidden: %+v", hidden)
			}
			for _, g := range found {
				addrs = append(addrs, g.Addr.String())
			}
			return nil
		})
		slices.Sort(addrs)
		return addrs
	}
	if got := gateways(); !slices.Equal(got, []string{"10.32.0.1", "fd32::1"}) {
		t.Fatalf("gateways %v", got)
	}
	next := map[netip.Addr]netip.Addr{
		netip.MustParseAddr("10.32.0.1"): netip.MustParseAddr("10.40.0.9"), netip.MustParseAddr("fd32::1"): netip.MustParseAddr("fd32::9"),
	}
	labtest.Run(t, h.Space, "ip", "link", "set", ports[0].Name, "down") // the routes have a flag then that the kernel does not take back
	err := h.Do(func() error { return podlink.Reroute(ports, func(old netip.Addr) netip.Addr { return next[old] }) })
	if err != nil {
		t.Fatal(err)
	}
	if got := gateways(); !slices.Equal(got, []string{"10.40.0.9", "fd32::9"}) {
		t.Errorf("gateways %v after the change", got)
	}
	if out := labtest.Run(t, p.Space, "ip", "route"); !strings.Contains(out, "default via 203.0.113.1 dev other") ||
		strings.Contains(out, "10.32.0.1") {
		t.Errorf("routes:\n%s", out)
	}
}

// TestAdoptGateway: a pair that exists takes over another gateway.
func TestAdoptGateway(t *testing.T) {
	h := newHost(t)
	p := labtest.AddPod(t, h, "p")
	spec := podSpec(p, 2)
	mustAttach(t, h, spec)
	for i := range spec.Addresses {
		if spec.Addresses[i].Gateway.Is4() {
			spec.Addresses[i].Gateway = netip.MustParseAddr("10.40.0.9")
		}
	}
	if err := (inside{h}).Adopt(t.Context(), spec, nil); err != nil {
		t.Fatal(err)
	}
	out := labtest.Run(t, p.Space, "ip", "route", "show", "default")
	if !strings.Contains(out, "via 10.40.0.9") || strings.Contains(out, "10.32.0.1") {
		t.Errorf("routes:\n%s", out)
	}
}
