package e2e

import (
	"fmt"
	"testing"

	"github.com/vishvananda/netns"

	"weft/internal/api"
	"weft/internal/nettest/labtest"
)

// TestGarbageIsFreed: a pod's namespace is deleted while the daemon is stopped. Its lease ends after the grace time. The
// lease of a running pod, and a lease by "weft ip allocate", stay.
func TestGarbageIsFreed(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a")
	n := nodes[0]
	up(t, n)
	do(t, n, "wait")
	dead, living := attach(t, n, "dead"), attach(t, n, "living")
	do(t, n, "ip", "allocate", "operator")
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if err := netns.DeleteNamed(dead.Name()); err != nil {
		t.Fatal(err)
	}
	up(t, n, "--lease-grace", "2s")
	do(t, n, "wait")
	labtest.Until(t, patience, func() error {
		held := map[string]bool{}
		for _, l := range query[[]api.Lease](t, n, "ip", "list") {
			held[l.IP.Addr().String()] = true
			held[l.Owner] = true
		}
		if !held[living.addr.String()] || !held["operator"] {
			t.Fatalf("a lease in use was released: %v", held)
		}
		if held[dead.addr.String()] {
			return fmt.Errorf("%s is still leased", dead.addr)
		}
		return nil
	})
	labtest.Until(t, patience, func() error { // it is counted after it has ended
		if s := query[api.Status](t, n, "status"); s.GarbageFreed != 1 {
			return fmt.Errorf("%d leases freed, want 1", s.GarbageFreed)
		}
		return nil
	})
}
