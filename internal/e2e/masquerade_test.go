package e2e

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/nettest/labtest"
)

// TestNoMasquerade: with --no-masquerade pods keep their addresses outside, and weft does not make the host a router.
func TestNoMasquerade(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	a, b := nodes[0], nodes[1]
	labtest.Run(t, a.Space, "sysctl", "-qw", "net.ipv4.ip_forward=0")
	start(t, nodes[:1], "--no-masquerade")
	p := attach(t, a, "p")
	if got := strings.TrimSpace(labtest.Run(t, a.Space, "sysctl", "-n", "net.ipv4.ip_forward")); got != "0" {
		t.Errorf("ip_forward is %s", got)
	}
	if rules := labtest.Run(t, a.Space, "nft", "list", "ruleset"); strings.Contains(rules, "masquerade") {
		t.Errorf("rules:\n%s", rules)
	}
	labtest.Run(t, a.Space, "sysctl", "-qw", "net.ipv4.ip_forward=1")
	labtest.Run(t, b.Space, "ip", "route", "add", "10.32.0.0/12", "via", a.Addr().String())
	serveSource(t, b.Space)
	for _, network := range []string{"tcp", "udp"} {
		wantSource(t, p.Space, network, netip.AddrPortFrom(b.Addr(), sourcePort), p.addr)
	}
	// --inward works without it, and makes the host a router.
	labtest.Run(t, a.Space, "sysctl", "-qw", "net.ipv4.ip_forward=0")
	serveSource(t, p.Space)
	own := netip.MustParsePrefix(do(t, a, "expose", "--inward")).Addr()
	wantSource(t, b.Space, "tcp", netip.AddrPortFrom(p.addr, sourcePort), own)
	labtest.Run(t, a.Space, "sysctl", "-qw", "net.ipv4.ip_forward=0")
	labtest.Until(t, patience, func() error {
		if got := strings.TrimSpace(labtest.Run(t, a.Space, "sysctl", "-n", "net.ipv4.ip_forward")); got != "1" {
			return fmt.Errorf("ip_forward is %s", got)
		}
		return nil
	})
}
