package ipam

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/ipam/store"
	"weft/ipam/store/storetest"
)

// cluster is a bus under random use, beside a model of the leases that its nodes have returned: one holder per address.
type cluster struct {
	*bus
	cidr  string
	start int // how many nodes bootstrap
	held  map[netip.Addr]holder
}

type holder struct {
	node  int
	owner string
}

// result is the result of one operation.
type result struct {
	node     int
	owner    string
	lease    Lease      // a new lease, or the same again
	released netip.Addr // released, or possibly, if the disk crashed
	err      error
}

func (c *cluster) config(n *node) Config {
	if n.index < c.start {
		return n.config(c.start, c.cidr)
	}
	return n.config(0, c.cidr)
}

// addr returns the address at an offset of the cluster's range.
func (c *cluster) addr(offset int) netip.Addr {
	b := netip.MustParsePrefix(c.cidr).Addr().As4()
	b[2] += byte(offset >> 8)
	b[3] += byte(offset)
	return netip.AddrFrom4(b)
}

// operate runs a random operation on a live node.
func (c *cluster) operate(n *node) result {
	owner := fmt.Sprintf("%d/%d", n.index, c.intn(16))
	ctx, cancel := context.WithTimeout(context.Background(), 4*time.Second)
	defer cancel()
	o := result{node: n.index, owner: owner}
	switch k := c.intn(100); {
	case k < 50:
		o.lease, o.err = n.alloc.Allocate(ctx, owner, whole)
	case k < 55:
		in := netip.PrefixFrom(c.addr(c.intn(512)), 27)
		o.lease, o.err = n.alloc.Allocate(ctx, owner, in)
	case k < 63:
		o.lease, o.err = n.alloc.Claim(ctx, owner, c.addr(1+c.intn(510)))
	default:
		if leases := n.alloc.Lookup(owner); len(leases) > 0 {
			addr := leases[c.intn(len(leases))].Addr
			if o.err = n.alloc.Release(owner, addr); o.err == nil || errors.Is(o.err, storetest.ErrCrash) {
				o.released = addr
			}
		}
	}
	return o
}

// record checks the results of operations that ran at one time against all earlier ones.
func (c *cluster) record(results []result) {
	c.t.Helper()
	for _, o := range results {
		delete(c.held, o.released)
	}
	for _, o := range results {
		if !o.lease.Addr.IsValid() {
			continue
		}
		now := holder{o.node, o.owner}
		if before, ok := c.held[o.lease.Addr]; ok && before != now {
			c.t.Fatalf("seed %d: %s leased to %v, and to %v", c.seed, o.lease.Addr, before, now)
		}
		c.held[o.lease.Addr] = now
	}
}

// audit compares the leases of all nodes, of dead ones on their disks, with the model. Leases that were written by an
// operation that crashed then are added to the model: they may exist or not.
func (c *cluster) audit() {
	c.t.Helper()
	seen := make(map[netip.Addr]holder)
	for _, n := range c.nodes {
		for _, l := range n.stored() {
			h := holder{n.index, l.Holder}
			if before, ok := seen[l.Addr]; ok {
				c.t.Fatalf("seed %d: %s leased by %v and by %v", c.seed, l.Addr, before, h)
			}
			seen[l.Addr] = h
		}
	}
	for addr, h := range c.held {
		if seen[addr] != h {
			c.t.Fatalf("%s was leased to %v, and is held by %v", addr, h, seen[addr])
		}
	}
	c.held = seen
}

// stored returns the leases on the disk of a node, alive or dead.
func (n *node) stored() []store.Lease {
	state, err := n.disk.Load()
	if err != nil {
		state, err = n.disk.Reopen().Load()
		_ = n.disk.Close()
	}
	if err != nil {
		n.bus.t.Fatal(err)
	}
	return state.Leases
}

// disturb crashes, restarts or cuts off nodes.
func (c *cluster) disturb() {
	switch k := c.intn(1000); {
	case k < 40:
		n := c.nodes[c.intn(len(c.nodes))]
		if n.alive {
			n.crash()
		}
	case k < 60: // the disk of a node fails at one of its next writes, which is durable or not
		n := c.nodes[c.intn(len(c.nodes))]
		written := c.intn(2) == 0
		at := n.disk.Updates() + c.intn(5)
		n.disk.OnUpdate(func(update int) (bool, bool) { return update == at, written })
	case k < 70:
		side := c.intn(4)
		c.mu.Lock()
		for _, n := range c.nodes {
			c.cut[n.id] = side > 0 && n.index%4 == side
		}
		c.mu.Unlock()
	}
	for _, n := range c.nodes {
		if !n.alive && c.intn(20) == 0 {
			n.disk.OnUpdate(nil)
			n.start(c.config(n))
		}
	}
}

// crashFailed crashes the nodes of which the disk has failed.
func (c *cluster) crashFailed() {
	for _, n := range c.nodes {
		if n.alive {
			if _, err := n.disk.Load(); err != nil {
				n.crash()
			}
		}
	}
}

func TestNoAddressIsEverLeasedTwice(t *testing.T) {
	const nodes, bootstrapNodes = 50, 7
	operations := 10_000
	if raceDetector {
		operations = 2_000 // it detects races, which are the same in all of them
	}
	synctest.Test(t, func(t *testing.T) {
		c := &cluster{bus: newBus(t, nodes, 7), cidr: "10.32.0.0/23", start: bootstrapNodes, held: make(map[netip.Addr]holder)}
		defer c.stop()
		begin := time.Now()
		c.loss, c.repeat, c.silent = 0.2, 0.1, 0.005
		for _, n := range c.nodes {
			n.start(c.config(n))
		}
		tally := make(map[string]int)
		for done := 0; done < operations; {
			c.disturb()
			results := c.batch()
			done += len(results)
			c.crashFailed()
			c.record(results)
			for _, o := range results {
				tally[kindOf(o.err)]++
			}
			if done%100 < len(results) {
				c.audit()
				c.check()
			}
			time.Sleep(5 * time.Millisecond)
		}
		synctest.Wait()
		c.audit()
		t.Logf("%v in %s", tally, time.Since(begin))
		if tally["done"] < operations/2 {
			t.Errorf("too few operations succeeded: %v", tally)
		}
		c.heal()
	})
}

// batch runs up to eight operations on different live nodes at one time.
func (c *cluster) batch() []result {
	var wg sync.WaitGroup
	var alive []*node
	for _, n := range c.nodes {
		if n.alive {
			alive = append(alive, n)
		}
	}
	c.mu.Lock()
	c.rng.Shuffle(len(alive), func(i, j int) { alive[i], alive[j] = alive[j], alive[i] })
	c.mu.Unlock()
	results := make([]result, min(len(alive), 1+c.intn(8)))
	for i := range results {
		begin := within(alive[i].dice("operate", nil), time.Millisecond)
		wg.Go(func() {
			time.Sleep(begin)
			results[i] = c.operate(alive[i])
		})
	}
	wg.Wait()
	return results
}

func kindOf(err error) string {
	for name, target := range map[string]error{
		"exhausted":   ErrExhausted,
		"leased":      ErrLeased,
		"unreachable": ErrUnreachable,
		"outside":     ErrOutside,
		"late":        context.DeadlineExceeded,
		"crash":       storetest.ErrCrash,
	} {
		if errors.Is(err, target) {
			return name
		}
	}
	if err != nil {
		return err.Error()
	}
	return "done"
}

// heal brings all nodes back, and checks that all get one view that adds up.
func (c *cluster) heal() {
	c.mu.Lock()
	clear(c.cut)
	c.loss, c.silent = 0, 0
	c.mu.Unlock()
	for _, n := range c.nodes {
		n.disk.OnUpdate(nil)
		if !n.alive {
			n.start(c.config(n))
		}
	}
	first := c.nodes[0].alloc
	c.eventually("one view of the ring", func() bool {
		return !slices.ContainsFunc(c.nodes, func(n *node) bool { return !bytes.Equal(n.alloc.State(), first.State()) })
	})
	c.audit()
	c.check()
	var addresses, free uint64
	for _, o := range first.Status().Ranges[0].Owners {
		addresses += o.Addresses
		free += o.Free
	}
	if addresses != 512 {
		c.t.Errorf("%d of 512 addresses have an owner", addresses)
	}
	if used := 510 - int(free); used != len(c.held) {
		c.t.Errorf("%d addresses used, %d leased", used, len(c.held))
	}
	for _, n := range c.nodes {
		if warnings := sentences(n.alloc.Status()); len(warnings) > 0 {
			c.t.Errorf("node %d: %v", n.index, warnings)
		}
	}
}
