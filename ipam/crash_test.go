package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"weft/ipam/store/storetest"
)

// script runs every kind of operation that writes on all nodes of crashAt. Failed operations are skipped.
func (c *cluster) script() (results []result) {
	add := func(n *node, owner string, f func(a *Allocator) (Lease, error)) {
		o := result{node: n.index, owner: owner}
		o.lease, o.err = f(n.alloc)
		results = append(results, o)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for round := range 3 {
		for _, n := range c.nodes {
			for i := range 4 {
				owner := fmt.Sprintf("%d/%d/%d", n.index, round, i)
				add(n, owner, func(a *Allocator) (Lease, error) { return a.Allocate(ctx, owner, whole) })
			}
			add(n, "claimer", func(a *Allocator) (Lease, error) { return a.Claim(ctx, "claimer", c.addr(20+round)) })
			victim := fmt.Sprintf("%d/%d/0", n.index, round)
			for _, l := range n.alloc.Lookup(victim) {
				if err := n.alloc.Release(victim, l.Addr); err == nil || errors.Is(err, storetest.ErrCrash) {
					results = append(results, result{node: n.index, released: l.Addr})
				}
			}
		}
	}
	return results
}

// TestCrashAtEveryWrite has the disk of one node crash at its first write, at its second, and so on, with that write
// durable or not. The node is started again, and every lease that was returned must still hold.
func TestCrashAtEveryWrite(t *testing.T) {
	step := 1
	if raceDetector {
		step = 7
	}
	for _, written := range []bool{false, true} {
		for at := 0; ; at += step {
			crashed := false
			synctest.Test(t, func(t *testing.T) { crashed = crashAt(t, at, written) })
			if !crashed {
				if at < 20 {
					t.Errorf("only %d writes", at)
				}
				break
			}
		}
	}
}

func crashAt(t *testing.T, at int, written bool) (crashed bool) {
	c := &cluster{bus: newBus(t, 3, uint64(at)), cidr: "10.32.0.0/27", start: 3, held: make(map[netip.Addr]holder)}
	defer c.stop()
	// The store fails once and works again: the allocator must find out itself what is durable.
	victim := c.nodes[1]
	victim.disk.OnUpdate(func(update int) (bool, bool) {
		if update == at {
			crashed = true
			go victim.disk.Reopen()
		}
		return update == at, written
	})
	for _, n := range c.nodes {
		a, err := New(c.config(n))
		if err != nil { // it crashed in New: start again
			synctest.Wait()
			a, err = New(c.config(n))
		}
		if err != nil {
			t.Fatal(err)
		}
		n.launch(a)
	}
	c.eventually("all nodes know all owners", c.allInformed)
	for _, o := range c.script() {
		c.record([]result{o})
	}
	synctest.Wait()
	c.audit()
	c.check()
	// The same holds after a restart from the disk.
	victim.crash()
	victim.start(c.config(victim))
	time.Sleep(30 * time.Second)
	synctest.Wait()
	c.audit()
	c.check()
	for _, n := range c.nodes {
		if warnings := sentences(n.alloc.Status()); len(warnings) > 0 {
			t.Errorf("crash at %d, written %v: node %d: %v", at, written, n.index, warnings)
		}
	}
	return crashed
}
