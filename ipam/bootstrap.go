package ipam

import (
	"fmt"
	"net/netip"
	"time"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store"
)

const (
	// repeaters is about how many acceptors repeat their state every tick, for nodes that missed it.
	repeaters = 8
	// announcePause is the shortest time between two answers of a node to states of a bootstrap that is over.
	announcePause = time.Second
	// announcers is about how many nodes answer them, however many there are: the states remain in the gossip queues of
	// many nodes for a while.
	announcers = 3
)

// ClusterIDs returns the cluster IDs of the ranges that are divided, by range.
func (a *Allocator) ClusterIDs() map[netip.Prefix]ring.ClusterID {
	ids := make(map[netip.Prefix]ring.ClusterID)
	a.view(func() {
		for _, p := range a.pools {
			if p.ring.Bootstrapped() {
				ids[p.prefix] = p.ring.ClusterID()
			}
		}
	})
	return ids
}

// bootstrapped returns how many ranges are divided. The caller holds mu.
func (a *Allocator) bootstrapped() (n int) {
	for _, p := range a.pools {
		if p.ring.Bootstrapped() {
			n++
		}
	}
	return n
}

// propose starts a ballot on the bootstrap of p, if it is this node's turn, and broadcasts this node's state. The
// caller holds mu.
func (a *Allocator) propose(p *pool) error {
	if p.ring.Bootstrapped() || a.cfg.Lazy && !p.requested || a.left {
		return nil
	}
	if p.bootstrap.Propose() {
		if err := a.update(p.saveBootstrap); err != nil {
			return err
		}
	}
	deltas, err := a.divide(p)
	if err != nil {
		return err
	}
	if own := p.bootstrap.Own(); len(deltas) == 0 && !own.IsZero() && a.rand.IntN(1+p.bootstrap.Known()/repeaters) == 0 {
		deltas = stateDeltas(p, []paxos.State{own})
	}
	a.out.broadcast(deltas)
	return nil
}

// divide divides p once the bootstrap nodes are decided, and returns the deltas to broadcast. The caller holds mu.
func (a *Allocator) divide(p *pool) (deltas [][]byte, err error) {
	nodes, ok := p.bootstrap.Decided()
	if !ok || p.ring.Bootstrapped() {
		return nil, nil
	}
	delta, err := p.ring.Bootstrap(nodes)
	if err != nil {
		return nil, err
	}
	p.syncSpace(&a.leases)
	held := a.leaseHeld(p)
	err = a.update(func(tx store.Tx) error {
		if err := p.saveRing(tx); err != nil {
			return err
		}
		return putAll(tx, held)
	})
	if err != nil {
		return nil, err
	}
	a.cfg.Logger.Info("range divided", "range", p.prefix.String(), "nodes", len(nodes))
	a.notifyWaiters()
	a.wake.Set()
	return ringDeltas(delta), nil
}

// mergeStates merges the bootstrap states of other nodes. A node that sends one after the range was divided is sent its
// tokens. The caller holds mu.
func (a *Allocator) mergeStates(p *pool, states []paxos.State) error {
	if p.ring.Bootstrapped() {
		a.out.broadcast(a.announce(p, states))
		return nil
	}
	metBefore, _ := p.bootstrap.Waiting()
	before := p.bootstrap.Own().Seq
	changed, err := p.bootstrap.Merge(states)
	if err != nil {
		return fmt.Errorf("ipam: %w", err)
	}
	if len(changed) == 0 {
		return nil
	}
	if p.bootstrap.Own().Seq != before {
		if err := a.update(p.saveBootstrap); err != nil {
			return err
		}
	}
	if met, needed := p.bootstrap.Waiting(); metBefore < met && met >= needed {
		a.wake.Set()
	}
	a.notifyWaiters()
	a.out.broadcast(stateDeltas(p, changed))
	deltas, err := a.divide(p)
	a.out.broadcast(deltas)
	return err
}

// announce returns deltas with the tokens of the nodes that sent states, so that they learn of the division before they
// next exchange whole states; none where this node, or enough others, did so recently. The caller holds mu.
func (a *Allocator) announce(p *pool, states []paxos.State) [][]byte {
	now := time.Now()
	if now.Sub(p.announcedAt) < announcePause || a.rand.IntN(max(len(p.ring.Totals()), announcers)) >= announcers {
		return nil
	}
	p.announcedAt = now
	late := make(map[peer.ID]bool)
	for _, s := range states {
		late[s.Node] = true
	}
	part := p.ring.Select(func(t ring.Token) bool { return late[t.Owner] })
	if part.Len() == 0 { // any token carries the cluster ID
		first := true
		part = p.ring.Select(func(ring.Token) bool { was := first; first = false; return was })
	}
	return ringDeltas(part)
}

// fillIn adds the first shares to a ring of which this node has received only a part, if the acceptors that it knows
// are the bootstrap nodes. Without it a bootstrap node that has not yet received its own token would request another
// share.
func (p *pool) fillIn() {
	var nodes []peer.ID
	for _, s := range p.bootstrap.States() {
		nodes = append(nodes, s.Node)
	}
	p.ring.FillIn(nodes[:min(len(nodes), paxos.MaxValue)])
}

func (p *pool) saveBootstrap(tx store.Tx) error {
	own := p.bootstrap.Own()
	if own.IsZero() {
		return nil
	}
	return tx.SetBootstrapState(p.prefix, encodeState(own))
}

func encodeState(own paxos.State) []byte { return paxos.Append(nil, []paxos.State{own}) }

// RequestBootstrap starts the bootstrap of all ranges that are not divided yet, even if it is lazy. It does not wait for its
// end; Ready reports that.
func (a *Allocator) RequestBootstrap() error {
	return a.do(func() error {
		for _, p := range a.pools {
			if _, err := a.ready(p); err != nil {
				return err
			}
		}
		return nil
	})
}
