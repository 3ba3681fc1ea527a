package ipam

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"

	"weft/ipam/store/storetest"
)

// TestHold loses the disk of a node while its pods run: from the moment in which the ring is received again their
// addresses are not allocated, on this node or, after a grant, on another.
func TestHold(t *testing.T) {
	bubble(t, 2, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/27")
		b.eventually("ready", b.allReady)
		lost := b.nodes[0]
		inUse := make(map[netip.Addr]string)
		for _, owner := range []string{"p", "q"} {
			inUse[allocate(t, lost.alloc, owner, "").Addr] = "orphan/" + owner
		}
		others := allocate(t, b.nodes[1].alloc, "r", "").Addr
		inUse[others] = "orphan/r"
		lost.crash()
		lost.disk = storetest.NewMemory()
		a, err := New(lost.config(2, "10.32.0.0/27"))
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Hold(inUse); err != nil || len(a.Leases()) > 0 {
			t.Fatalf("%v, %v: before it owns anything", a.Leases(), err)
		}
		lost.launch(a)
		b.eventually("ready", b.allReady)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		for n := 0; ; n++ { // until no node has any
			l, err := b.nodes[n%2].alloc.Allocate(ctx, "new"+string(rune('a'+n)), whole)
			if errors.Is(err, ErrExhausted) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			if owner, ok := inUse[l.Addr]; ok {
				t.Errorf("%s is allocated, but %q has it", l.Addr, owner)
			}
		}
		for _, owner := range []string{"orphan/p", "orphan/q"} {
			if l := a.Lookup(owner); len(l) != 1 || inUse[l[0].Addr] != owner || l[0].Bits != 27 {
				t.Errorf("%q has %v", owner, l)
			}
		}
		if l := a.Lookup("orphan/r"); len(l) > 0 {
			t.Errorf("%v of another node", l)
		}
		if _, err := a.Claim(ctx, "orphan/r", others); !errors.Is(err, ErrLeased) {
			t.Errorf("Claim of an address of another holder: %v", err)
		}
	})
}

// TestHoldDoesNotBootstrap: a lone node that may be joined to others does not bootstrap because of held addresses; when
// it does bootstrap, they are leased first.
func TestHoldDoesNotBootstrap(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bus) {
		cfg := b.nodes[0].config(1, "10.32.0.0/12", "fd00::/64")
		cfg.Lazy = true
		a := b.nodes[0].start(cfg)
		four, six := netip.MustParseAddr("10.32.0.1"), netip.MustParseAddr("fd00::1")
		if err := a.Hold(map[netip.Addr]string{four: "o", six: "o", netip.MustParseAddr("192.0.2.1"): "x"}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		if st := a.Status(); st.State != Idle {
			t.Errorf("%+v", st)
		}
		leases, err := a.AllocateAll(context.Background(), "new")
		if err != nil || leases[0].Addr == four || leases[1].Addr == six {
			t.Errorf("%v, %v", leases, err)
		}
		if held := a.Lookup("o"); len(held) != 2 || held[0].Addr != four || held[1].Addr != six {
			t.Errorf("%v", held)
		}
		// A second call with another holder does not change the lease.
		if err := a.Hold(map[netip.Addr]string{four: "other"}); err != nil || len(a.Lookup("other")) > 0 {
			t.Errorf("%v, %v", a.Lookup("other"), err)
		}
	})
}

func TestReassign(t *testing.T) {
	bubble(t, 1, func(t *testing.T, b *bus) {
		b.startAll("10.32.0.0/12")
		n := b.nodes[0]
		l := allocate(t, n.alloc, "o", "")
		if err := n.alloc.Reassign("unknown", "x"); !errors.Is(err, ErrUnknownOwner) {
			t.Errorf("of an unknown holder: %v", err)
		}
		if err := n.alloc.Reassign("o", "p"); err != nil {
			t.Fatal(err)
		}
		if got := allocate(t, n.alloc, "p", ""); got.Addr != l.Addr || len(n.alloc.Lookup("o")) > 0 {
			t.Errorf("%v, want the lease of o: %v", got, l)
		}
		n.crash()
		a := n.start(n.config(1, "10.32.0.0/12"))
		if got := a.Lookup("p"); len(got) != 1 || got[0].Addr != l.Addr || len(a.Leases()) != 1 {
			t.Errorf("after a restart: %v", a.Leases())
		}
	})
}
