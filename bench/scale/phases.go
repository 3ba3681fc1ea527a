package scale

import (
	"fmt"
	"sync"
	"time"

	"weft/ipam"
)

// run is one phase while it is measured.
type run struct {
	*simulation
	*meter
	Phase
}

// startAll starts all nodes.
func (s *simulation) startAll(r *run) error {
	begin := time.Now()
	for i, n := range s.nodes {
		if err := sleepUntil(s.ctx, begin.Add(share(startTime, i, len(s.nodes)))); err != nil {
			return err
		}
		n.addPods(podsPerNode)
		if err := n.start(); err != nil {
			return fmt.Errorf("%s: %w", n.name, err)
		}
	}
	return r.converge()
}

// churn restarts some nodes, and lets some report a broken link.
func (s *simulation) churn(r *run) error {
	changes := max(1, len(s.nodes)/churnShare) * int(churnTime/time.Minute)
	begin := time.Now()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i := range changes {
		if err := sleepUntil(s.ctx, begin.Add(share(churnTime, i, changes))); err != nil {
			return err
		}
		down := restartTime
		if i%2 == 1 {
			down = rebootTime
		}
		n, link, other := s.anyNode(), s.anyNode(), s.anyNode()
		wg.Go(func() { s.restart(n, down) })
		wg.Go(func() { link.reportBroken(other.identity.ID, brokenTime) })
	}
	if err := sleepUntil(s.ctx, begin.Add(churnTime)); err != nil {
		return err
	}
	wg.Wait()
	return r.converge()
}

// restartAll restarts all nodes, one after another.
func (s *simulation) restartAll(r *run) error {
	begin := time.Now()
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, n := range s.nodes {
		if err := sleepUntil(s.ctx, begin.Add(share(rollingTime, i, len(s.nodes)))); err != nil {
			return err
		}
		wg.Go(func() { s.restart(n, restartTime) })
	}
	wg.Wait()
	if err := r.converge(); err != nil {
		return err
	}
	_, err := checkLeases(s.nodes)
	return err
}

// divide divides the network into halves for some time. On both sides pods are started meanwhile.
func (s *simulation) divide(r *run) error {
	begin := time.Now()
	for i, h := range s.hosts {
		h.side.Store(int32(i % 2))
	}
	if err := sleepUntil(s.ctx, begin.Add(partitionTime/2)); err != nil {
		return err
	}
	for _, n := range s.nodes {
		n.addPods(1)
	}
	return sleepUntil(s.ctx, begin.Add(partitionTime))
}

// heal ends the partition.
func (s *simulation) heal(r *run) error {
	for _, h := range s.hosts {
		h.side.Store(0)
	}
	return r.converge()
}

// restart ends the process of a node and starts another one after some time. Of two restarts at a time, the later one has no effect.
func (s *simulation) restart(n *node, down time.Duration) {
	if n.process.Load() == nil {
		return
	}
	s.report(n, n.stop())
	time.Sleep(down)
	s.report(n, n.start())
}

func (s *simulation) anyNode() *node { return s.nodes[s.dice.IntN(len(s.nodes))] }

// share returns when the ith of n events is due that divide a time evenly.
func share(all time.Duration, i, n int) time.Duration {
	return time.Duration(float64(all) * float64(i) / float64(n))
}

// goal is a state of the network that is waited for.
type goal struct {
	at      *float64
	reached func() bool
	since   time.Time // when it was reached; zero: it is not now
}

// converge waits until all nodes have one view and their addresses, and records since when.
func (r *run) converge() error {
	begin := time.Now()
	goals := []*goal{
		{at: &r.Known, reached: r.allKnown}, {at: &r.Leased, reached: r.allLeased}, {at: &r.Agreed, reached: r.ringWatch()},
	}
	for {
		now, steady := time.Now(), true
		for i, g := range goals {
			// The last one is expensive, and cannot be reached before the first.
			ok := (i < 2 || !goals[0].since.IsZero()) && r.check(g.reached)
			switch {
			case !ok:
				g.since = time.Time{}
			case g.since.IsZero():
				g.since = now
			}
			steady = steady && ok && now.Sub(g.since) >= steadyTime
		}
		if steady {
			break
		}
		if now.Sub(begin) > r.o.Limit {
			return fmt.Errorf("the nodes had not one view within %s: %s", r.o.Limit, r.lacks())
		}
		if err := r.failed(); err != nil {
			return err
		}
		if err := sleepUntil(r.ctx, now.Add(pollInterval)); err != nil {
			return err
		}
	}
	for _, g := range goals {
		*g.at = g.since.Sub(begin).Seconds()
	}
	return nil
}

// allKnown reports whether all nodes see all nodes alive.
func (s *simulation) allKnown() bool {
	for _, n := range s.nodes {
		if p := n.process.Load(); p == nil || int(p.members.alive.Load()) != len(s.nodes) {
			return false
		}
	}
	return true
}

// allLeased reports whether all pods have their addresses.
func (s *simulation) allLeased() bool {
	for _, n := range s.nodes {
		if !n.hasLeases() {
			return false
		}
	}
	return true
}

// ringWatch returns a function that reports whether all nodes have the same owners with the same number of addresses. Comparing is
// expensive, so the node that differed last is looked at first, and once all agree, a part of them is compared at each look.
func (s *simulation) ringWatch() func() bool {
	next, agreed := 0, false
	return func() bool {
		first := s.owners(s.nodes[0])
		if len(first) != len(s.nodes) {
			agreed = false
			return false
		}
		count := len(s.nodes)
		if agreed {
			count = max(1, count/int(steadyTime/pollInterval))
		}
		for range count {
			if !sameOwners(first, s.owners(s.nodes[next])) {
				agreed = false
				return false
			}
			next = (next + 1) % len(s.nodes)
		}
		agreed = true
		return true
	}
}

func (s *simulation) owners(n *node) []ipam.Owner {
	p := n.process.Load()
	if p == nil {
		return nil
	}
	return p.ipam.Status().Ranges[0].Owners
}

func sameOwners(a, b []ipam.Owner) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i].ID != b[i].ID || a[i].Addresses != b[i].Addresses {
			return false
		}
	}
	return true
}

// lacks returns what is missing to one view, for an error.
func (s *simulation) lacks() string {
	alone, pods, rings := 0, 0, 0
	first := s.owners(s.nodes[0])
	for _, n := range s.nodes {
		if p := n.process.Load(); p == nil || int(p.members.alive.Load()) != len(s.nodes) {
			alone++
		}
		if !n.hasLeases() {
			pods++
		}
		if !sameOwners(first, s.owners(n)) {
			rings++
		}
	}
	return fmt.Sprintf("%d nodes do not know exactly all others, %d have pods without an address, %d have another ring than the first, which "+
		"has %d owners", alone, pods, rings, len(first))
}
