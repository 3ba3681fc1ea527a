package ipam

import (
	"context"
	"math"
	"net/netip"
	"testing"
	"testing/synctest"

	"weft/internal/peer"
)

// TestParts: the parts of a range fill it, in order, each as long as its owner's share, and include the leased
// fraction.
func TestParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, 4, 1)
		defer b.stop()
		cidr := netip.MustParsePrefix("10.32.0.0/24")
		if parts := (&Allocator{}).Parts(cidr, 10); parts != nil {
			t.Errorf("of an unknown range: %+v", parts)
		}
		b.startAll(cidr.String())
		b.eventually("ready", b.allReady)
		a := b.nodes[0].alloc
		for range 30 {
			if _, err := a.Allocate(context.Background(), "x"+string(rune('a'+len(a.Leases()))), cidr); err != nil {
				t.Fatal(err)
			}
		}
		for _, most := range []int{100, 3} { // all parts, and a sample
			end, shares := 0.0, map[peer.ID]float64{}
			for _, p := range a.Parts(cidr, most) {
				if math.Abs(p.Start-end) > 1e-9 {
					t.Errorf("a part starts at %v, the one before it ends at %v", p.Start, end)
				}
				end = p.Start + p.Length
				shares[p.Owner] += p.Length
				if p.Owner == nodeID(0) && (p.Used < 0.4 || p.Used > 0.6) {
					t.Errorf("30 of 64 leased, and the part reports %v", p.Used)
				}
			}
			if math.Abs(end-1) > 1e-9 || most == 100 && len(shares) != 4 {
				t.Errorf("%d parts at most end at %v: %v", most, end, shares)
			}
		}
	})
}
