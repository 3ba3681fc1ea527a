package ipam

import (
	"net/netip"

	"weft/ipam/paxos"
	"weft/ipam/store"
)

// repeaters is about how many electors repeat what they have voted with every tick, for those who missed it.
const repeaters = 8

// pool returns the pool of a range; nil where this node does not use it. The caller holds mu.
func (a *Allocator) pool(cidr netip.Prefix) *pool {
	for _, p := range a.pools {
		if p.prefix == cidr {
			return p
		}
	}
	return nil
}

// propose has this node do its part for the founding of p, if that is its turn, and tells the others.
func (a *Allocator) propose(p *pool) error {
	if p.ring.Bootstrapped() || a.cfg.Lazy && !p.wanted || a.left {
		return nil
	}
	if p.votes.Propose() {
		if err := a.commit(p.saveVote); err != nil {
			return err
		}
	}
	deltas, err := a.found(p)
	if err != nil {
		return err
	}
	if own := p.votes.Own(); len(deltas) == 0 && !own.IsZero() && a.rand.IntN(1+p.votes.Known()/repeaters) == 0 {
		deltas = voteDeltas(p, []paxos.State{own})
	}
	a.broadcast(deltas)
	return nil
}

// found divides p once the founders are agreed on, and returns what to tell the others.
func (a *Allocator) found(p *pool) (deltas [][]byte, err error) {
	founders, ok := p.votes.Decided()
	if !ok || p.ring.Bootstrapped() {
		return nil, nil
	}
	delta, err := p.ring.Bootstrap(founders)
	if err != nil {
		return nil, err
	}
	p.adopt(&a.leases)
	held := a.leaseHeld(p)
	err = a.commit(func(tx store.Tx) error {
		if err := p.saveRing(tx); err != nil {
			return err
		}
		return putAll(tx, held)
	})
	if err != nil {
		return nil, err
	}
	a.cfg.Logger.Info("ipam: range divided", "range", p.prefix.String(), "founders", len(founders))
	a.notify()
	a.poke()
	return ringDeltas(delta), nil
}
