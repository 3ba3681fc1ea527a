package ipam

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// TestRestoredBackup: a node runs with an old copy of its state, in which it still owns an address that it has granted
// since, and leases it while it is cut off. When the network is healed the last rightful holder keeps the address, all
// views become equal, and the restored node warns and names the leases that it lost.
func TestRestoredBackup(t *testing.T) {
	for _, busy := range []int{0, 12} { // operations with the old state, which raise the versions of its tokens
		synctest.Test(t, func(t *testing.T) {
			b := newBus(t, 3, 1)
			defer b.stop()
			b.startAll("10.32.0.0/24")
			b.eventually("all ready", b.allInformed)
			restored, grantee := b.nodes[0], b.nodes[1]
			ring := restored.alloc.pools[0].ring
			addr := ring.Addr(ring.Owned(restored.id)[0].Start + 20)
			backup := restored.disk.Copy()
			if _, err := grantee.alloc.Claim(t.Context(), "pod", addr); err != nil {
				t.Fatal(err)
			}
			time.Sleep(20 * time.Second) // all nodes have received it
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
				first := b.nodes[0].alloc.State()
				return bytes.Equal(first, b.nodes[1].alloc.State()) && bytes.Equal(first, b.nodes[2].alloc.State())
			})
			if leases := grantee.alloc.Lookup("pod"); len(leases) != 1 || leases[0].Addr != addr {
				t.Errorf("busy %d: the rightful holder has %v", busy, leases)
			}
			if leases := a.Lookup("another"); len(leases) != 0 {
				t.Errorf("busy %d: the address is leased twice: %v", busy, leases)
			}
			if warnings := strings.Join(sentences(a.Status()), "\n"); !strings.Contains(warnings, "old copy") {
				t.Errorf("busy %d: warnings %q", busy, warnings)
			}
			if lost := a.Lost(); len(lost) != 1 || lost[0].Addr != addr || lost[0].Holder != "another" || lost[0].Owner != grantee.id {
				t.Errorf("busy %d: lost leases %+v", busy, lost)
			}
			b.check()
		})
	}
}

// TestNeedlessReclaim: an operator reclaims the addresses of a node that is cut off, not dead. The others use them, and
// the node ends its leases when it learns of that.
func TestNeedlessReclaim(t *testing.T) {
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
		b.eventually("all nodes know it", func() bool { return b.nodes[1].owned(lone.id) == 0 })
		if _, err := b.nodes[1].alloc.Claim(t.Context(), "new", lease.Addr); err != nil {
			t.Fatal(err)
		}
		b.isolate()
		b.eventually("the node knows it", func() bool {
			b.pushPull(lone, b.nodes[1])
			return len(lone.alloc.Leases()) == 0 && lone.alloc.Ready()
		})
		warnings := strings.Join(sentences(lone.alloc.Status()), "\n")
		if lost := lone.alloc.Lost(); !strings.Contains(warnings, "reclaimed") || len(lost) != 1 || lost[0].Addr != lease.Addr {
			t.Errorf("warnings %q, lost leases %+v", warnings, lost)
		}
		b.check()
	})
}
