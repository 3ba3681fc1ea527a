package router

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// TestDuplicates: an address that moves once is no duplicate, one that flaps is, until ten minutes after its last flap.
func TestDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 3)
		addr := netip.MustParseAddr("10.32.0.5")
		deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'a'))
		deliver(t, nodes, 2, frame(ether.Broadcast, mac(2), 'a'))
		nodes[0].duplicates.noteClaim(addr, mac(1), time.Now())
		nodes[0].duplicates.noteClaim(addr, mac(2), time.Now())
		if got := nodes[0].Duplicates(); len(got) != 0 {
			t.Errorf("moved once: %+v", got)
		}
		for range minFlaps/2 + 1 {
			deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'b'))
			deliver(t, nodes, 2, frame(ether.Broadcast, mac(2), 'c'))
			nodes[0].duplicates.noteClaim(addr, mac(1), time.Now())
			nodes[0].duplicates.noteClaim(addr, mac(2), time.Now())
		}
		got := nodes[0].Duplicates()
		if len(got) != 2 || got[0].Addr.IsValid() == got[1].Addr.IsValid() || got[0].MAC != mac(2) || got[1].MAC != mac(2) {
			t.Errorf("flapped: %+v", got)
		}
		time.Sleep(flapReported)
		if got := nodes[0].Duplicates(); len(got) != 0 {
			t.Errorf("long after: %+v", got)
		}
		for range 2 * minFlaps {
			time.Sleep(2 * flapWithin)
			deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'd'))
			time.Sleep(2 * flapWithin)
			deliver(t, nodes, 2, frame(ether.Broadcast, mac(2), 'e'))
		}
		if got := nodes[0].Duplicates(); len(got) != 0 {
			t.Errorf("moves from time to time: %+v", got)
		}
	})
}

// TestDuplicatesRestarts: an address that is assigned to one pod after another, each with a hardware address of its
// own, is no duplicate. One that flaps between three is.
func TestDuplicatesRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 1)
		d, addr := &nodes[0].duplicates, netip.MustParseAddr("10.32.0.5")
		for i := range 4 * minFlaps {
			time.Sleep(time.Second)
			d.noteClaim(addr, mac(i+1), time.Now())
		}
		if got := nodes[0].Duplicates(); len(got) != 0 {
			t.Errorf("restarted repeatedly: %+v", got)
		}
		for i := range minFlaps + 3 {
			time.Sleep(time.Second)
			d.noteClaim(addr, mac(100+i%3), time.Now())
		}
		if got := nodes[0].Duplicates(); len(got) != 1 || got[0].Addr != addr {
			t.Errorf("three have it: %+v", got)
		}
		for i := range 4 * minFlaps { // as in migrations
			time.Sleep(time.Second)
			d.noteMove(mac(200), peer.ID{byte(i)}, time.Now())
		}
		if got := nodes[0].Duplicates(); len(got) != 1 {
			t.Errorf("moved from node to node to node: %+v", got)
		}
	})
}
