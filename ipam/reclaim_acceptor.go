package ipam

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store"
)

// unfenceAfter is how long a dead node has to be reachable again, or how long no ballot about it has to arrive, until
// this node accepts its grants again: the proposer has given up by then, and a new ballot asks this node again.
const unfenceAfter = 2 * patience

// maxIdleInstances bounds the acceptor states of nodes that own nothing: there is nothing to reclaim from them, and any sender can
// make up any number of them. The number of owners is bounded by ring.MaxTokens.
const maxIdleInstances = 64

// reclaimAcceptor is the acceptor's side of the reclaim instances on one node, beside the durable states in its pools.
// It is guarded by the Allocator's mu.
type reclaimAcceptor struct {
	unfenced   map[instanceKey]bool      // instances that no longer keep this node from accepting grants of the dead node
	backSince  map[instanceKey]time.Time // since when the dead node is reachable again
	lastBallot map[instanceKey]time.Time // when a ballot was last received; at first when the stored state was seen
	ended      []peer.ID                 // dead nodes of instances that have ended, for Events.Reclaimed
}

func newReclaimAcceptor() reclaimAcceptor {
	return reclaimAcceptor{
		unfenced:   make(map[instanceKey]bool),
		backSince:  make(map[instanceKey]time.Time),
		lastBallot: make(map[instanceKey]time.Time),
	}
}

// drainEnded removes and returns the dead nodes of the instances that have ended.
func (r *reclaimAcceptor) drainEnded() []peer.ID {
	ended := r.ended
	r.ended = nil
	return ended
}

// origin is where tokens that are merged come from. The zero origin is invalid.
type origin uint8

const (
	fromGossip   origin = iota + 1 // from any node, and possibly delayed
	fromInstance                   // in a message of a reclaim instance: all that the sender knew at that moment
)

// handleBallot answers a ballot with this node's acceptor state, and all that it knows of the dead node's tokens. The
// caller holds mu.
func (a *Allocator) handleBallot(from peer.ID, m *reclaimMessage) error {
	incoming, err := ring.Decode(m.ring)
	if err != nil {
		return err
	}
	p := a.pool(incoming.Range())
	if p == nil {
		return fmt.Errorf("ipam: ballot on %s: %w", incoming.Range(), ring.ErrRange)
	}
	if err := a.mergeRing(incoming, fromInstance); err != nil {
		return err
	}
	tokens := p.tokensWithin(append(p.spansOf(m.dead), spansIn(incoming)...))
	answer := reclaimMessage{kind: kindAnswer, dead: m.dead, ring: tokens.Append(nil)}
	if a.cfg.Membership.Reachable(m.dead) {
		answer.alive = true
	} else {
		if _, known := p.acceptorStates[m.dead]; !known && p.owned(m.dead) == 0 && len(p.acceptorStates) >= maxIdleInstances {
			return fmt.Errorf("%w: ballot on node %s, which owns nothing", ErrMessage, m.dead)
		}
		key := instanceKey{p.prefix, m.dead}
		delete(a.acceptor.unfenced, key)
		a.acceptor.lastBallot[key] = time.Now()
		err := a.updateAcceptor(key, func(own *paxos.Acceptor) {
			if m.newOwner.IsZero() {
				own.Promise(m.ballot)
			} else {
				own.Accept(m.ballot, m.newOwner)
			}
		})
		if err != nil {
			return err
		}
	}
	answer.state = p.acceptorStates[m.dead]
	a.out.unicast(from, answer.encode())
	return nil
}

// handleCommit applies the outcome of an instance and ends this node's part in it. All tokens of the dead node that the
// new owner does not have now belong to other nodes. The caller holds mu.
func (a *Allocator) handleCommit(m *reclaimMessage) error {
	incoming, err := ring.Decode(m.ring)
	if err != nil {
		return err
	}
	p := a.pool(incoming.Range())
	if p == nil {
		return fmt.Errorf("ipam: reclaim of %s: %w", incoming.Range(), ring.ErrRange)
	}
	// First: later grants of the dead node must not win over the tokens of the new owner.
	if err := a.mergeRing(incoming, fromInstance); err != nil {
		return err
	}
	if own, known := p.acceptorStates[m.dead]; !known || own.Value != m.newOwner {
		return nil
	}
	return a.endInstance(p, m.dead)
}

// updateAcceptor changes this node's acceptor state in an instance and makes it durable, together with the ring,
// because the state is sent with the tokens that this node knows. The caller holds mu.
func (a *Allocator) updateAcceptor(key instanceKey, f func(own *paxos.Acceptor)) error {
	p := a.pool(key.cidr)
	before := p.acceptorStates[key.dead]
	own := before
	f(&own)
	if own != before {
		p.setAcceptor(key.dead, own)
		err := a.update(func(tx store.Tx) error {
			return errors.Join(p.saveRing(tx), tx.SetReclaimState(key.cidr, key.dead, own.Append(nil)))
		})
		if err != nil {
			return err
		}
	}
	if i := a.proposer.instances[key]; i != nil && i.record(a.cfg.Self, own) {
		i.answered.Set()
	}
	return nil
}

// withoutFenced returns incoming without the tokens that this node has promised not to accept: grants of a node that is
// being reclaimed. The other acceptors rely on it that this node has sent all that it knew, and owns no more than that.
// The caller holds mu.
func (a *Allocator) withoutFenced(p *pool, incoming *ring.Ring, from origin) *ring.Ring {
	if len(p.acceptorStates) == 0 {
		return incoming
	}
	var fenced []ring.Token
	for _, t := range p.ring.Tokens() {
		if a.fenced(p, t.Owner) {
			fenced = append(fenced, t)
		}
	}
	return incoming.Select(func(t ring.Token) bool {
		if from == fromInstance && t.Owner != a.cfg.Self {
			return true
		}
		cur, known := p.ring.TokenAt(t.Start)
		if known && !a.fenced(p, cur.Owner) {
			return true
		}
		return !slices.ContainsFunc(fenced, func(f ring.Token) bool {
			return f.Span().Contains(t.Start) && t.Epoch() <= f.Epoch()
		})
	})
}

// fenced reports whether this node has promised to accept no more grants of dead. The caller holds mu.
func (a *Allocator) fenced(p *pool, dead peer.ID) bool {
	own, known := p.acceptorStates[dead]
	return known && !own.Promised.IsZero() && !a.acceptor.unfenced[instanceKey{p.prefix, dead}]
}

// unfence makes this node accept grants of dead again, because dead sends messages and so is alive, or because the
// proposer has given up. A ballot of this node's own, which is higher, voids its promise. An accepted value may be
// decided and is kept: then dead stays fenced. The caller holds mu.
func (a *Allocator) unfence(p *pool, dead peer.ID) error {
	key := instanceKey{p.prefix, dead}
	if !a.fenced(p, dead) || !p.acceptorStates[dead].Accepted.IsZero() || a.proposer.instances[key] != nil {
		return nil
	}
	higher := paxos.Ballot{Round: p.acceptorStates[dead].Promised.Round + 1, By: a.cfg.Self}
	if err := a.updateAcceptor(key, func(own *paxos.Acceptor) { own.Promise(higher) }); err != nil {
		return err
	}
	a.acceptor.unfenced[key] = true
	return nil
}

// unfinishedReclaims returns the dead nodes of instances in which this node has accepted a value, and has not learned
// the outcome for long: until such an instance is decided this node accepts no more grants of the dead node. The caller
// holds mu.
func (a *Allocator) unfinishedReclaims(p *pool) (dead []peer.ID) {
	for id, own := range p.acceptorStates {
		last, known := a.acceptor.lastBallot[instanceKey{p.prefix, id}]
		if known && a.fenced(p, id) && !own.Accepted.IsZero() && time.Since(last) > unfenceAfter {
			dead = append(dead, id)
		}
	}
	slices.SortFunc(dead, peer.ID.Compare)
	return dead
}

// maintainReclaims ends this node's part in instances about nodes that own nothing, and accepts grants again of nodes
// that have come back for good. The caller holds mu.
func (a *Allocator) maintainReclaims(p *pool) error {
	now := time.Now()
	for dead := range p.acceptorStates {
		key := instanceKey{p.prefix, dead}
		if last, known := a.acceptor.lastBallot[key]; !known {
			a.acceptor.lastBallot[key] = now
		} else if now.Sub(last) >= unfenceAfter {
			if err := a.unfence(p, dead); err != nil {
				return err
			}
		}
		if a.proposer.instances[key] != nil || !a.cfg.Membership.Reachable(dead) {
			delete(a.acceptor.backSince, key)
		} else if since, known := a.acceptor.backSince[key]; !known {
			a.acceptor.backSince[key] = now
		} else if now.Sub(since) >= unfenceAfter {
			a.acceptor.unfenced[key] = true
		}
		if a.proposer.instances[key] != nil || p.owned(dead) != 0 {
			continue
		}
		p.dropAcceptor(&a.acceptor, dead)
		if err := a.update(func(tx store.Tx) error { return tx.SetReclaimState(p.prefix, dead, nil) }); err != nil {
			return err
		}
	}
	return nil
}

// endDecided ends this node's part in instances of which the outcome has become known: a part of the dead node's tokens
// before the change is of a later epoch now. The proposer that decided so knew all that this node had promised not to
// change. The caller holds mu.
func (a *Allocator) endDecided(p *pool, before map[peer.ID]*ring.Ring) error {
	for dead, tokens := range before {
		for _, t := range tokens.Tokens() {
			if now, known := p.ring.TokenAt(t.Start); known && now.Epoch() > t.Epoch() {
				if err := a.endInstance(p, dead); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// endInstance removes this node's acceptor state in an instance, and makes that durable together with the outcome. The
// caller holds mu.
func (a *Allocator) endInstance(p *pool, dead peer.ID) error {
	p.dropAcceptor(&a.acceptor, dead)
	err := a.update(func(tx store.Tx) error { return errors.Join(p.saveRing(tx), tx.SetReclaimState(p.prefix, dead, nil)) })
	if err == nil {
		a.acceptor.ended = append(a.acceptor.ended, dead)
	}
	return err
}

// setAcceptor sets this node's acceptor state in an instance.
func (p *pool) setAcceptor(dead peer.ID, own paxos.Acceptor) {
	if p.acceptorStates == nil {
		p.acceptorStates = make(map[peer.ID]paxos.Acceptor)
	}
	p.acceptorStates[dead] = own
}

// dropAcceptor removes this node's acceptor state in an instance from memory, with all that r keeps about it.
func (p *pool) dropAcceptor(r *reclaimAcceptor, dead peer.ID) {
	key := instanceKey{p.prefix, dead}
	delete(p.acceptorStates, dead)
	delete(r.lastBallot, key)
	delete(r.backSince, key)
	delete(r.unfenced, key)
}

// loadAcceptors reads this node's acceptor states.
func (p *pool) loadAcceptors(stored map[peer.ID][]byte) error {
	for dead, b := range stored {
		own, _, err := paxos.DecodeAcceptor(b)
		if err != nil {
			return err
		}
		p.setAcceptor(dead, own)
	}
	return nil
}

// tokensInReclaim returns the tokens of the dead nodes of the instances that this node has a state in, by dead node.
func (p *pool) tokensInReclaim() map[peer.ID]*ring.Ring {
	if len(p.acceptorStates) == 0 {
		return nil
	}
	tokens := make(map[peer.ID]*ring.Ring, len(p.acceptorStates))
	for dead := range p.acceptorStates {
		tokens[dead] = p.ring.Select(func(t ring.Token) bool { return t.Owner == dead })
	}
	return tokens
}

// spansOf returns the spans of the tokens of a node.
func (p *pool) spansOf(owner peer.ID) []ring.Span {
	return spansIn(p.ring.Select(func(t ring.Token) bool { return t.Owner == owner }))
}

// tokensWithin returns the tokens that share offsets with any of spans.
func (p *pool) tokensWithin(spans []ring.Span) *ring.Ring {
	return p.ring.Select(func(t ring.Token) bool {
		return slices.ContainsFunc(spans, func(s ring.Span) bool { return t.Span().Intersect(s).Len() > 0 })
	})
}

// spansIn returns the spans of the tokens of r, as they are written.
func spansIn(r *ring.Ring) (spans []ring.Span) {
	for _, t := range r.Tokens() {
		spans = append(spans, t.Span())
	}
	return spans
}
