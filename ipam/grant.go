package ipam

import (
	"maps"
	"slices"

	"weft/internal/peer"
	"weft/ipam/ring"
	"weft/ipam/space"
	"weft/ipam/store"
)

// maxHints is how many tokens of other nodes with free addresses a refusal names at most.
const maxHints = 32

// maxServed is how many requests of one node are remembered: it has one at a time for each range, and repeats those that
// were not answered.
const maxServed = 8

// served is a request that was answered to a node, so that the same request, received again, is granted once, also when
// requests arrive alternately.
type served struct {
	id    uint64
	reply []byte
}

// handleRequest answers a request for addresses. The caller holds mu.
func (a *Allocator) handleRequest(from peer.ID, m *unicast) error {
	before := a.served[from]
	if i := slices.IndexFunc(before, func(s served) bool { return s.id == m.id }); i >= 0 {
		a.out.unicast(from, before[i].reply)
		return nil
	}
	reply := &unicast{kind: kindReply, id: m.id, outcome: none}
	p, err := a.mergeFrom(from, m)
	if a.broken != nil {
		return err
	}
	if err == nil {
		tokens, err := a.grant(p, from, m, reply)
		if err != nil {
			return err
		}
		reply.count = p.free(ring.Span{Start: 0, End: p.ring.Size()})
		reply.ring = tokens.Append(nil)
	}
	if before == nil && len(a.served) >= maxPeers {
		a.forgetServed()
	}
	answer := served{id: m.id, reply: reply.encode()}
	a.served[from] = append(before[max(0, len(before)-maxServed+1):], answer)
	a.out.unicast(from, answer.reply)
	return err
}

// forgetServed forgets the replies to nodes that no message reaches, which may be made up; where there are no such nodes, all.
// The caller holds mu.
func (a *Allocator) forgetServed() {
	maps.DeleteFunc(a.served, func(id peer.ID, _ []served) bool { return !a.cfg.Membership.Reachable(id) })
	if len(a.served) >= maxPeers {
		clear(a.served)
	}
}

// grant grants the requested addresses, if it can, sets the outcome of the reply, and returns the tokens for its ring.
// A requester that owns more than it knows, as a bootstrap node that missed the division may, is sent its tokens
// instead, so that it does not get a second share. The caller holds mu.
func (a *Allocator) grant(p *pool, from peer.ID, m, reply *unicast) (*ring.Ring, error) {
	requested := ring.Span{Start: m.low, End: m.end}.Intersect(p.ring.Usable())
	if m.claim {
		return a.grantClaim(p, from, requested, reply)
	}
	if p.owned(from) > m.count {
		reply.outcome = owning
		return p.ring.Select(func(t ring.Token) bool { return t.Owner == from }), nil
	}
	span, ok := p.space.Donation(space.Span(requested))
	if !ok || a.left {
		return a.hints(p, from, requested), nil
	}
	return a.grantSpan(p, from, p.withEdges(ring.Span(span)), reply)
}

// grantClaim is grant for a request for one address.
func (a *Allocator) grantClaim(p *pool, from peer.ID, requested ring.Span, reply *unicast) (*ring.Ring, error) {
	covering := p.ring.Select(func(t ring.Token) bool { return t.Span().Contains(requested.Start) })
	switch {
	case requested.Len() != 1 || a.left:
		return covering, nil
	case !p.space.Owns(requested.Start):
		reply.outcome = notOwner
		return covering, nil
	case !p.space.Free(requested.Start):
		reply.outcome = leased
		reply.holder = a.leases.byAddr[p.ring.Addr(requested.Start)].Holder
		return covering, nil
	}
	return a.grantSpan(p, from, requested, reply)
}

// grantSpan hands span over to another node. The change is durable before it is sent.
func (a *Allocator) grantSpan(p *pool, to peer.ID, span ring.Span, reply *unicast) (*ring.Ring, error) {
	delta, err := p.ring.Grant(a.cfg.Self, to, span, p.free)
	if err != nil {
		a.cfg.Logger.Warn("addresses not granted", "peer", to, "err", err)
		return a.hints(p, to, span), nil
	}
	p.syncSpace(&a.leases)
	if err := a.update(func(tx store.Tx) error { return p.saveRing(tx) }); err != nil {
		return nil, err
	}
	a.cfg.Logger.Info("addresses granted", "peer", to, "addr", p.ring.Addr(span.Start), "count", span.Len())
	a.counts.granted.Add(1)
	a.out.broadcast(ringDeltas(delta))
	a.notifyWaiters()
	reply.outcome = granted
	return delta, nil
}

// hints returns tokens of other nodes with free addresses within the requested span, for a requester that is refused.
func (a *Allocator) hints(p *pool, from peer.ID, requested ring.Span) *ring.Ring {
	n := 0
	return p.ring.Select(func(t ring.Token) bool {
		if t.Owner == from || t.Owner == a.cfg.Self || t.Free == 0 || t.Span().Intersect(requested).Len() == 0 || n == maxHints {
			return false
		}
		n++
		return true
	})
}
