package ipam

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/peer"
)

// owned returns how many addresses of the first range the node id owns in n's view.
func (n *node) owned(id peer.ID) (addresses uint64) {
	for _, o := range n.alloc.Status().Ranges[0].Owners {
		if o.ID == id {
			addresses = o.Addresses
		}
	}
	return addresses
}

// TestReclaim: of two nodes that reclaim a dead node's addresses at once, one gets them, whatever messages are lost.
// All nodes learn of it, also the dead one when it comes back: it ends its leases and gets a new share.
func TestReclaim(t *testing.T) {
	for seed := range uint64(40) {
		synctest.Test(t, func(t *testing.T) {
			b := newBus(t, 4, seed)
			defer b.stop()
			b.startAll("10.32.0.0/24")
			b.eventually("all ready", b.allInformed)
			dead := b.nodes[3]
			lease, err := dead.alloc.Allocate(context.Background(), "pod", whole)
			if err != nil {
				t.Fatal(err)
			}
			dead.crash()
			b.mu.Lock()
			b.loss, b.repeat, b.silent = 0.2, 0.2, 0.15
			b.mu.Unlock()
			var wg sync.WaitGroup
			for _, n := range b.nodes[:2] {
				wg.Go(func() {
					for try := 0; ; try++ {
						ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
						_, err := n.alloc.Reclaim(ctx, dead.id)
						cancel()
						if err == nil {
							return
						}
						if !errors.Is(err, ErrUnresponsive) || try == 3 {
							t.Errorf("seed %d: node %d: %v", seed, n.index, err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.eventually("the addresses belong to one of the others", func() bool {
				return !slicesAny(b.nodes[:3], func(n *node) bool {
					return n.owned(dead.id) != 0 || n.owned(nodeID(0))+n.owned(nodeID(1))+n.owned(nodeID(2)) != 256
				})
			})
			if x, y := b.nodes[0].owned(nodeID(0)), b.nodes[0].owned(nodeID(1)); max(x, y) != 128 || min(x, y) != 64 {
				t.Errorf("seed %d: the two own %d and %d, want one of them to own all of it", seed, x, y)
			}
			b.check()
			b.mu.Lock()
			b.loss, b.silent = 0, 0
			b.mu.Unlock()
			dead.start(dead.config(4, "10.32.0.0/24"))
			b.eventually("the node knows, and has a new share", func() bool {
				return len(dead.alloc.Leases()) == 0 && dead.alloc.Ready() && dead.owned(dead.id) > 0
			})
			warnings := fmt.Sprint(sentences(dead.alloc.Status()))
			if lost := dead.alloc.Lost(); !strings.Contains(warnings, "reclaimed") || len(lost) != 1 || lost[0].Addr != lease.Addr {
				t.Errorf("seed %d: warnings %s, lost leases %+v, want one about %s", seed, warnings, lost, lease.Addr)
			}
			for _, n := range b.nodes[:3] {
				if warnings := sentences(n.alloc.Status()); len(warnings) > 0 {
					t.Errorf("seed %d: node %d warns %v", seed, n.index, warnings)
				}
			}
			b.check()
		})
	}
}

func slicesAny(nodes []*node, f func(*node) bool) bool {
	for _, n := range nodes {
		if f(n) {
			return true
		}
	}
	return false
}

// TestReclaimNeedsAllOwners: an owner that is not reachable blocks a reclaim, with an error that names it, until it is
// named as dead as well. A node that another node reaches cannot be reclaimed.
func TestReclaimNeedsAllOwners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, 4, 1)
		defer b.stop()
		b.startAll("10.32.0.0/24")
		b.eventually("all ready", b.allInformed)
		a := b.nodes[0].alloc
		if _, err := a.Reclaim(t.Context(), nodeID(3)); !errors.Is(err, ErrAlive) {
			t.Errorf("of a node that is alive: %v", err)
		}
		b.nodes[2].crash()
		b.nodes[3].crash()
		begin := time.Now()
		_, err := a.Reclaim(t.Context(), nodeID(3))
		silent, ok := errors.AsType[*UnresponsiveError](err)
		if !ok || !errors.Is(err, ErrUnresponsive) || silent.Node != nodeID(2) || !strings.Contains(err.Error(), "node nc") {
			t.Fatalf("%v, want one that names node 2", err)
		}
		if d := time.Since(begin); d > patience {
			t.Errorf("after %s", d)
		}
		if want := "weft reclaim " + nodeID(3).String() + " " + nodeID(2).String(); !strings.Contains(silent.Hint(), want) {
			t.Errorf("%q, want a hint with %q", silent.Hint(), want)
		}
		results, err := a.Reclaim(t.Context(), nodeID(2), nodeID(3))
		if err != nil || len(results) != 2 {
			t.Errorf("%v, %v, want both", results, err)
		}
		if n := b.nodes[0].owned(nodeID(0)); n != 192 {
			t.Errorf("it owns %d addresses, want 192", n)
		}
		if results, err := a.Reclaim(t.Context(), nodeID(2)); err != nil || len(results) != 1 || results[0].Addresses != 0 {
			t.Errorf("again: %v, %v", results, err)
		}
		b.check()
	})
}

// TestReclaimKnowsTheLastGrant: an address that the dead node granted, and of which only the grantee knows, stays with
// the grantee.
func TestReclaimKnowsTheLastGrant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBus(t, 3, 1)
		defer b.stop()
		b.startAll("10.32.0.0/24")
		b.eventually("all ready", b.allInformed)
		granter, grantee := b.nodes[2], b.nodes[1]
		b.mu.Lock()
		b.loss = 1 // no other node learns of the grant
		b.mu.Unlock()
		addr := granter.alloc.pools[0].ring.Addr(granter.alloc.pools[0].ring.Owned(granter.id)[0].Start + 10)
		if _, err := grantee.alloc.Claim(context.Background(), "pod", addr); err != nil {
			t.Fatal(err)
		}
		granter.crash()
		results, err := b.nodes[0].alloc.Reclaim(context.Background(), granter.id)
		if err != nil || len(results) != 1 || results[0].Addresses != 84 && results[0].Addresses != 85-1 {
			t.Errorf("%v, %v, want all but the one address", results, err)
		}
		b.mu.Lock()
		b.loss = 0
		b.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		if leases := grantee.alloc.Lookup("pod"); len(leases) != 1 {
			t.Error("the lease has ended")
		}
		b.check()
	})
}

// TestReclaimCrashes has the disk of the proposer, or of an acceptor, crash at each of its writes, with that write
// durable or not. The reclaim succeeds when it is run again, and each lease is still held once.
func TestReclaimCrashes(t *testing.T) {
	for _, victim := range []int{0, 1} {
		for _, written := range []bool{false, true} {
			for at := 0; ; at++ {
				crashed := false
				synctest.Test(t, func(t *testing.T) {
					b := newBus(t, 3, uint64(at))
					defer b.stop()
					b.startAll("10.32.0.0/24")
					b.eventually("all ready", b.allInformed)
					b.nodes[2].crash()
					v := b.nodes[victim]
					from := v.disk.Updates()
					v.disk.OnUpdate(func(update int) (bool, bool) {
						crashed = crashed || update == from+at
						return update == from+at, written
					})
					_, err := b.nodes[0].alloc.Reclaim(context.Background(), nodeID(2))
					v.disk.OnUpdate(nil)
					if crashed {
						v.crash()
						v.start(v.config(3, "10.32.0.0/24"))
						_, err = b.nodes[0].alloc.Reclaim(context.Background(), nodeID(2))
					}
					if err != nil {
						t.Errorf("victim %d, write %d, written %v: %v", victim, at, written, err)
					}
					b.eventually(fmt.Sprintf("one owner of all: victim %d, write %d, written %v", victim, at, written), func() bool {
						b.pushPull(b.nodes[0], b.nodes[1])
						return b.nodes[0].owned(nodeID(2)) == 0 && b.nodes[1].owned(nodeID(2)) == 0 &&
							b.nodes[1].owned(nodeID(0)) == b.nodes[0].owned(nodeID(0)) && b.nodes[0].owned(nodeID(0))+b.nodes[0].owned(nodeID(1)) == 256
					})
					b.check()
				})
				if !crashed {
					if at < 2 {
						t.Errorf("victim %d: only %d writes", victim, at)
					}
					break
				}
			}
		}
	}
}
