package router

import (
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// TestDuplicates: who moves once is no duplicate, and who goes to and fro is, until ten minutes after it has stopped.
func TestDuplicates(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 3)
		addr := netip.MustParseAddr("10.32.0.5")
		deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'a'))
		deliver(t, nodes, 2, frame(ether.Broadcast, mac(2), 'a'))
		nodes[0].duplicates.claimed(addr, mac(1), time.Now())
		nodes[0].duplicates.claimed(addr, mac(2), time.Now())
		if got := nodes[0].Duplicates(); len(got) != 0 {
			t.Errorf("moved once: %+v", got)
		}
		for range flapsMany/2 + 1 {
			deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'b'))
			deliver(t, nodes, 2, frame(ether.Broadcast, mac(2), 'c'))
			nodes[0].duplicates.claimed(addr, mac(1), time.Now())
			nodes[0].duplicates.claimed(addr, mac(2), time.Now())
		}
		got := nodes[0].Duplicates()
		if len(got) != 2 || got[0].Addr.IsValid() == got[1].Addr.IsValid() || got[0].MAC != mac(2) || got[1].MAC != mac(2) {
			t.Errorf("went to and fro: %+v", got)
		}
		time.Sleep(flapFor)
		if got := nodes[0].Duplicates(); len(got) != 0 {
			t.Errorf("long past: %+v", got)
		}
		for range 2 * flapsMany {
			time.Sleep(2 * flapWithin)
			deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'd'))
			time.Sleep(2 * flapWithin)
			deliver(t, nodes, 2, frame(ether.Broadcast, mac(2), 'e'))
		}
		if got := nodes[0].Duplicates(); len(got) != 0 {
			t.Errorf("moves now and then: %+v", got)
		}
	})
}

// TestDuplicatesRestarts: an address that one pod after another gets, each with a hardware address of its own, goes to none of them again. Two that
// have it do not escape by a third.
func TestDuplicatesRestarts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 1)
		d, addr := &nodes[0].duplicates, netip.MustParseAddr("10.32.0.5")
		for i := range 4 * flapsMany {
			time.Sleep(time.Second)
			d.claimed(addr, mac(i+1), time.Now())
		}
		if got := nodes[0].Duplicates(); len(got) != 0 {
			t.Errorf("started again and again: %+v", got)
		}
		for i := range flapsMany + 3 {
			time.Sleep(time.Second)
			d.claimed(addr, mac(100+i%3), time.Now())
		}
		if got := nodes[0].Duplicates(); len(got) != 1 || got[0].Addr != addr {
			t.Errorf("three have it: %+v", got)
		}
		for i := range 4 * flapsMany { // as in migrations
			time.Sleep(time.Second)
			d.moved(mac(200), peer.ID{byte(i)}, time.Now())
		}
		if got := nodes[0].Duplicates(); len(got) != 1 {
			t.Errorf("moved from node to node to node: %+v", got)
		}
	})
}
