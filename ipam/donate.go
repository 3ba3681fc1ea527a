package ipam

import (
	"errors"
	"fmt"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/space"
	"weft/ipam/store"
)

const (
	maxHints = 32   // tokens that a refusal may name, of others that have space
	maxPeers = 4096 // nodes of which is remembered what was last answered them
)

// served is the last ask that was answered to a node, so that the same ask, heard twice, is granted once.
type served struct {
	id    uint64
	reply []byte
}

// Message takes in a message that another allocator's Gossip.Unicast sent. An error says that it could not be used: it wraps
// ErrMessage, ring.ErrEncoding, ring.ErrRange, paxos.ErrEncoding or is a *ring.ForeignError.
func (a *Allocator) Message(from peer.ID, msg []byte) error {
	err := a.take(from, msg)
	var foreign *ring.ClusterMismatchError
	if err == nil || errors.As(err, &foreign) {
		return err
	}
	for _, unusable := range []error{ErrMessage, ring.ErrEncoding, ring.ErrRange, paxos.ErrEncoding} {
		if errors.Is(err, unusable) {
			return err
		}
	}
	a.cfg.Logger.Warn("ipam: message not dealt with", "peer", from, "err", err) // as the state could not be written
	return nil
}

func (a *Allocator) take(from peer.ID, msg []byte) error {
	if from == a.cfg.Self || from.IsZero() {
		return fmt.Errorf("%w: from %s", ErrMessage, from)
	}
	if len(msg) > 1 && msg[1] >= kindBallot && msg[1] <= kindOver {
		return a.ballotMessage(from, msg)
	}
	m, err := decodeUnicast(msg)
	if err != nil {
		return err
	}
	return a.do(func() error {
		if len(a.heard) < maxPeers {
			a.heard[from] = struct{}{}
		}
		switch m.kind {
		case kindAsk:
			return a.answer(from, &m)
		case kindReply:
			return a.hearReply(from, &m)
		case kindHandover:
			return a.inherit(from, &m)
		}
		return fmt.Errorf("%w: of kind %d, of a newer weft", ErrMessage, m.kind)
	})
}

// ballotMessage takes in a message about a decree.
func (a *Allocator) ballotMessage(from peer.ID, msg []byte) error {
	m, err := decodeBallot(msg)
	if err != nil {
		return err
	}
	return a.do(func() error {
		switch m.kind {
		case kindBallot:
			return a.hearBallot(from, &m)
		case kindStand:
			return a.hearStand(from, &m)
		default:
			return a.hearOver(&m)
		}
	})
}

// mergeFrom merges the ring that came with a message, and returns its pool; nil where this node does not use that range.
func (a *Allocator) mergeFrom(from peer.ID, m *unicast) (*pool, error) {
	incoming, err := ring.Decode(m.ring)
	if err != nil {
		return nil, err
	}
	if p := a.pool(incoming.Range()); p != nil {
		if err := a.lift(p, from); err != nil {
			return nil, err
		}
	}
	if err := a.mergeRing(incoming, gossiped); err != nil {
		return nil, err
	}
	return a.pool(incoming.Range()), nil
}

// answer serves an ask.
func (a *Allocator) answer(from peer.ID, m *unicast) error {
	if last, ok := a.served[from]; ok && last.id == m.id {
		a.out = append(a.out, outgoing{to: from, msg: last.reply})
		return nil
	}
	reply := &unicast{kind: kindReply, id: m.id, outcome: none}
	p, err := a.mergeFrom(from, m)
	if a.broken != nil {
		return err
	}
	if err == nil {
		delta, err := a.serve(p, from, m, reply)
		if err != nil {
			return err
		}
		reply.count = p.free(ring.Span{Start: 0, End: p.ring.Size()})
		reply.ring = delta.Append(nil)
	}
	if len(a.served) >= maxPeers {
		clear(a.served)
	}
	a.served[from] = served{id: m.id, reply: reply.encode()}
	a.out = append(a.out, outgoing{to: from, msg: a.served[from].reply})
	return err
}

// serve grants what is asked for, if it can, and returns what the asker must know of the ring. It sets the outcome. Who
// owns more than it has heard of, as a founder may of whom the news of the founding was lost, is told of that first: it is
// no reason to give it a second share.
func (a *Allocator) serve(p *pool, from peer.ID, m, reply *unicast) (*ring.Ring, error) {
	asked := ring.Span{Start: m.low, End: m.end}.Intersect(p.ring.Usable())
	if m.claim {
		return a.serveClaim(p, from, asked, reply)
	}
	if p.owned(from) > m.count {
		reply.outcome = owning
		return p.ring.Select(func(t ring.Token) bool { return t.Owner == from }), nil
	}
	gift, ok := p.space.Donation(space.Span(asked))
	if !ok || a.left {
		return a.hints(p, from, asked), nil
	}
	return a.grant(p, from, p.withEdges(ring.Span(gift)), reply)
}

// serveClaim serves an ask for one address.
func (a *Allocator) serveClaim(p *pool, from peer.ID, asked ring.Span, reply *unicast) (*ring.Ring, error) {
	covering := p.ring.Select(func(t ring.Token) bool { return t.Span().Contains(asked.Start) })
	switch {
	case asked.Len() != 1 || a.left:
		return covering, nil
	case !p.space.Owns(asked.Start):
		reply.outcome = notOwner
		return covering, nil
	case !p.space.Free(asked.Start):
		reply.outcome = leased
		reply.holder = a.leases.byAddr[p.ring.Addr(asked.Start)].Holder
		return covering, nil
	}
	return a.grant(p, from, asked, reply)
}

// grant gives span away, and writes that down before anybody hears of it.
func (a *Allocator) grant(p *pool, to peer.ID, span ring.Span, reply *unicast) (*ring.Ring, error) {
	delta, err := p.ring.Grant(a.cfg.Self, to, span, p.free)
	if err != nil {
		a.cfg.Logger.Warn("ipam: space not given", "peer", to, "err", err)
		return a.hints(p, to, span), nil
	}
	p.adopt(&a.leases)
	if err := a.commit(func(tx store.Tx) error { return p.saveRing(tx) }); err != nil {
		return nil, err
	}
	a.cfg.Logger.Info("ipam: space given", "peer", to, "addr", p.ring.Addr(span.Start), "count", span.Len())
	a.counts.given.Add(1)
	a.broadcast(ringDeltas(delta))
	a.notify()
	reply.outcome = granted
	return delta, nil
}

// hints returns tokens of others that are said to have space within asked, for one who is refused.
func (a *Allocator) hints(p *pool, from peer.ID, asked ring.Span) *ring.Ring {
	n := 0
	return p.ring.Select(func(t ring.Token) bool {
		if t.Owner == from || t.Owner == a.cfg.Self || t.Free == 0 || t.Span().Intersect(asked).Len() == 0 || n == maxHints {
			return false
		}
		n++
		return true
	})
}

// hearReply ends the flight that m answers, after it has merged what came with it.
func (a *Allocator) hearReply(from peer.ID, m *unicast) error {
	var err error
	if len(m.ring) > 0 {
		if _, err = a.mergeFrom(from, m); a.broken != nil {
			return err
		}
	}
	for _, f := range a.flights {
		if f.id == m.id && f.key.donor == from {
			if m.outcome == granted && f.isAsk() {
				a.counts.received.Add(1)
			}
			a.finish(f, m.outcome, m.holder)
		}
	}
	return err
}

// inherit takes over what a leaving node gives, and confirms it.
func (a *Allocator) inherit(from peer.ID, m *unicast) error {
	p, err := a.mergeFrom(from, m)
	if err != nil {
		return err
	}
	gift, err := ring.Decode(m.ring)
	if err != nil {
		return err
	}
	for _, t := range gift.Tokens() {
		if now, _ := p.ring.TokenAt(t.Start); t.Owner == a.cfg.Self && (now.Start != t.Start || now.Version < t.Version) {
			return fmt.Errorf("ipam: what %s gives is not taken: its space is about to be reclaimed", a.name(from))
		}
	}
	reply := unicast{kind: kindReply, id: m.id, outcome: granted, ring: p.ring.Select(func(ring.Token) bool { return false }).Append(nil)}
	a.out = append(a.out, outgoing{to: from, msg: reply.encode()})
	return nil
}
