package ipam

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestARestoredBackup: a node runs with an old copy of its state, in which it still owns what it has given away since, and
// leases that while it is cut off. When the network is whole again the one who had it last keeps it, all come to one view,
// and the node that was restored says what is wrong and which leases it lost.
func TestARestoredBackup(t *testing.T) {
	for _, busy := range []int{0, 12} { // how much it does with the old state: that much higher are its versions
		synctest.Test(t, func(t *testing.T) {
			b := newBus(t, 3, 1)
			defer b.stop()
			b.startAll("10.32.0.0/24")
			b.eventually("all ready", b.allInformed)
			restored, taker := b.nodes[0], b.nodes[1]
			ring := restored.alloc.pools[0].ring
			addr := ring.Addr(ring.Owned(restored.id)[0].Start + 20)
			backup := restored.disk.Copy()
			if _, err := taker.alloc.Claim(t.Context(), "pod", addr); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Second) // all have heard
			restored.crash()
			restored.disk = backup
			b.isolate(restored)
			a := restored.start(restored.config(3, "10.32.0.0/24"))
			if _, err := a.Claim(t.Context(), "another", addr); err != nil {
				t.Fatal(err)
			}
			for range busy {
				if _, err := a.Allocate(context.Background(), "busy", whole); err != nil {
					t.Fatal(err)
				}
				time.Sleep(10 * time.Second)
			}
			b.isolate()
			b.eventually("one view", func() bool {
				for _, n := range b.nodes[1:] {
					b.pushPull(restored, n)
				}
				return bytes.Equal(b.nodes[0].alloc.State(), b.nodes[1].alloc.State()) && bytes.Equal(b.nodes[1].alloc.State(), b.nodes[2].alloc.State())
			})
			if leases := taker.alloc.Lookup("pod"); len(leases) != 1 || leases[0].Addr != addr {
				t.Errorf("busy %d: who had the address holds %v", busy, leases)
			}
			if leases := a.Lookup("another"); len(leases) != 0 {
				t.Errorf("busy %d: the address is leased twice: %v", busy, leases)
			}
			said := strings.Join(a.Status().Warnings, "\n")
			for _, want := range []string{"old", addr.String(), "another"} {
				if !strings.Contains(said, want) {
					t.Errorf("busy %d: it says %q, without %q", busy, said, want)
				}
			}
			b.check()
		})
	}
}

// TestAMendThatWasNeedless: an operator reclaims from a node that is cut off, and not dead: the others go on with what it
// owned, and the node gives up its leases when it hears of that.
func TestAMendThatWasNeedless(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, 3, 1)
		defer b.stop()
		b.startAll("10.32.0.0/24")
		b.eventually("all ready", b.allInformed)
		lone := b.nodes[2]
		b.isolate(lone)
		lease, err := lone.alloc.Allocate(t.Context(), "pod", whole)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := b.nodes[0].alloc.Reclaim(t.Context(), lone.id); err != nil {
			t.Fatal(err)
		}
		b.eventually("all hear of it", func() bool { return b.nodes[1].owned(lone.id) == 0 })
		if _, err := b.nodes[1].alloc.Claim(t.Context(), "heir's", lease.Addr); err != nil {
			t.Fatal(err)
		}
		b.isolate()
		b.eventually("it has heard", func() bool { b.pushPull(lone, b.nodes[1]); return len(lone.alloc.Leases()) == 0 && lone.alloc.Ready() })
		if said := strings.Join(lone.alloc.Status().Warnings, "\n"); !strings.Contains(said, lease.Addr.String()) || !strings.Contains(said, "reclaimed") {
			t.Errorf("it says %q", said)
		}
		b.check()
	})
}
