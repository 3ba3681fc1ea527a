package ipam

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"weft/internal/bytesreader"
	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store"
)

// ballotMessage is what proposer and elector of a decree say to each other, as unicasts beside those of wire.go:
//
//	+---------+------+--------+---------+-------+-------+-------+------+
//	| version | kind | gone   | ballot  | heir  | alive | stand | ring |
//	| byte    | byte | 8      | 8 + 8   | 8     | byte  |       | rest |
//	+---------+------+--------+---------+-------+-------+-------+------+
//
// Ballot is a round (big endian) and who proposes it. Stand is as paxos.Acceptor.Append writes it: of an answer what the
// elector has promised and accepted. Ring is all that the sender knows of what gone owns, or has owned.
type ballotMessage struct {
	kind   byte
	gone   peer.ID
	ballot paxos.Ballot   // of a ballot
	heir   peer.ID        // of a ballot: zero to ask for a promise, else who is to be accepted
	alive  bool           // of an answer: the elector reaches the node that is said to be gone
	stand  paxos.Acceptor // of an answer
	ring   []byte
}

func (m *ballotMessage) encode() []byte {
	b := append([]byte{messageVersion, m.kind}, m.gone[:]...)
	b = binary.BigEndian.AppendUint64(b, m.ballot.Round)
	b = append(b, m.ballot.By[:]...)
	b = append(b, m.heir[:]...)
	alive := byte(0)
	if m.alive {
		alive = 1
	}
	b = m.stand.Append(append(b, alive))
	return append(b, m.ring...)
}

func decodeBallot(b []byte) (m ballotMessage, err error) {
	const fixed = 2 + 8 + 8 + 8 + 8 + 1
	r := bytesreader.Reader{B: b}
	head := r.Bytes(fixed)
	if len(head) < fixed || head[0] != messageVersion {
		return m, fmt.Errorf("%w: ballot of %d bytes", ErrMessage, len(b))
	}
	m.kind, m.gone = head[1], peer.ID(head[2:])
	m.ballot = paxos.Ballot{Round: binary.BigEndian.Uint64(head[10:]), By: peer.ID(head[18:])}
	m.heir, m.alive = peer.ID(head[26:]), head[34] == 1
	if m.stand, m.ring, err = paxos.DecodeAcceptor(r.B); err != nil || m.ballot.Round > paxos.MaxCount || m.gone.IsZero() {
		return m, fmt.Errorf("%w: ballot of %d bytes", ErrMessage, len(b))
	}
	return m, nil
}

// setDecree notes this node's part in a decree.
func (p *pool) setDecree(gone peer.ID, own paxos.Acceptor) {
	if p.decrees == nil {
		p.decrees = make(map[peer.ID]paxos.Acceptor)
	}
	p.decrees[gone] = own
}

// estate returns what this node knows of what gone's tokens name, here or in another view.
func (p *pool) estate(gone peer.ID, other *ring.Ring) *ring.Ring {
	var spans []ring.Span
	for _, t := range p.ring.Tokens() {
		if t.Owner == gone {
			spans = append(spans, t.Span())
		}
	}
	if other != nil {
		for _, t := range other.Tokens() {
			spans = append(spans, t.Span())
		}
	}
	return p.ring.Select(func(t ring.Token) bool {
		for _, s := range spans {
			if t.Span().Intersect(s).Len() > 0 {
				return true
			}
		}
		return false
	})
}

// source is how tokens came to this node.
type source bool

const (
	gossiped source = false // from anybody, and perhaps late
	decreed  source = true  // from one who has part in a decree, with what it knew of when it promised
)

// fence returns incoming without what this node has promised to know nothing more of: what a node gave away that is gone.
// Others count on having heard all that this one knew, and that it owns no more than it said.
func (a *Allocator) fence(p *pool, incoming *ring.Ring, how source) *ring.Ring {
	if len(p.decrees) == 0 {
		return incoming
	}
	var estates []ring.Token
	for _, t := range p.ring.Tokens() {
		if a.fenced(p, t.Owner) {
			estates = append(estates, t)
		}
	}
	return incoming.Select(func(t ring.Token) bool {
		if how == decreed && t.Owner != a.cfg.Self {
			return true
		}
		cur, known := p.ring.TokenAt(t.Start)
		if known && !a.fenced(p, cur.Owner) {
			return true
		}
		return !slices.ContainsFunc(estates, func(e ring.Token) bool {
			return e.Span().Contains(t.Start) && t.Epoch() <= e.Epoch()
		})
	})
}

// fenced reports whether this node has promised to take nothing more from gone.
func (a *Allocator) fenced(p *pool, gone peer.ID) bool {
	own, known := p.decrees[gone]
	return known && !own.Promised.IsZero() && !a.lifted[reclaimKey{p.prefix, gone}]
}

// lift takes this node's promise back to take nothing more of what gone gives, as gone speaks to it and so is not gone, or as
// whoever proposed the decree has given up. All that was promised is made void by a ballot of this node's own, which is
// higher; what it has accepted may be decided, and stays.
func (a *Allocator) lift(p *pool, gone peer.ID) error {
	key := reclaimKey{p.prefix, gone}
	if !a.fenced(p, gone) || !p.decrees[gone].Accepted.IsZero() || a.reclaims[key] != nil {
		return nil
	}
	higher := paxos.Ballot{Round: p.decrees[gone].Promised.Round + 1, By: a.cfg.Self}
	if err := a.vote(key, func(own *paxos.Acceptor) { own.Promise(higher) }); err != nil {
		return err
	}
	a.lifted[key] = true
	return nil
}

// unfinished returns sentences about decrees for which this node has accepted an heir, and has not heard of the outcome for
// long: until somebody takes them to their end it learns nothing more of what those had that are gone.
func (a *Allocator) unfinished(p *pool) (warnings []string) {
	now := a.cfg.Now()
	for gone, own := range p.decrees {
		since, known := a.balloted[reclaimKey{p.prefix, gone}]
		if known && a.fenced(p, gone) && !own.Accepted.IsZero() && now.Sub(since) > liftAfter {
			warnings = append(warnings, fmt.Sprintf("%s: a reclaim of what node %s owned was begun and not brought to its end: run "+
				"`weft reclaim %s` again, or start that node", p.prefix, a.name(gone), gone))
		}
	}
	slices.Sort(warnings)
	return warnings
}

// liftAfter is how long a node has to be alive until what it gives is taken again though its space was to be reclaimed:
// whoever proposed that has given up by then, and who proposes it anew asks this node anew.
const liftAfter = 2 * patience

// keepDecrees forgets this node's parts in decrees about those who own nothing, and takes again what those give who have
// come back for good.
func (a *Allocator) keepDecrees(p *pool) error {
	now := a.cfg.Now()
	for gone := range p.decrees {
		key := reclaimKey{p.prefix, gone}
		if since, known := a.balloted[key]; !known {
			a.balloted[key] = now
		} else if now.Sub(since) >= liftAfter {
			if err := a.lift(p, gone); err != nil {
				return err
			}
		}
		if a.reclaims[key] != nil || !a.cfg.Reachable(gone) {
			delete(a.backSince, key)
		} else if since, known := a.backSince[key]; !known {
			a.backSince[key] = now
		} else if now.Sub(since) >= liftAfter {
			a.lifted[key] = true
		}
		if a.reclaims[key] != nil || p.owned(gone) != 0 {
			continue
		}
		delete(p.decrees, gone)
		delete(a.balloted, key)
		if err := a.commit(func(tx store.Tx) error { return tx.SetReclaimState(p.prefix, gone, nil) }); err != nil {
			return err
		}
	}
	return nil
}

// estates returns the tokens of those that this node has its part in a decree about, by these.
func (p *pool) estates() map[peer.ID]*ring.Ring {
	if len(p.decrees) == 0 {
		return nil
	}
	estates := make(map[peer.ID]*ring.Ring, len(p.decrees))
	for gone := range p.decrees {
		estates[gone] = p.ring.Select(func(t ring.Token) bool { return t.Owner == gone })
	}
	return estates
}

// endDecrees forgets this node's parts in decrees whose outcome has become known: part of what those owned that they are
// about, as it was before, is of a later reign. Whoever decided that knew all that this node had promised to leave alone.
func (a *Allocator) endDecrees(p *pool, before map[peer.ID]*ring.Ring) error {
	for gone, estate := range before {
		for _, t := range estate.Tokens() {
			if now, known := p.ring.TokenAt(t.Start); known && now.Epoch() > t.Epoch() {
				if err := a.endDecree(p, gone); err != nil {
					return err
				}
				break
			}
		}
	}
	return nil
}

// endDecree forgets this node's part in a decree, together with what it knows of the outcome.
func (a *Allocator) endDecree(p *pool, gone peer.ID) error {
	delete(p.decrees, gone)
	delete(a.balloted, reclaimKey{p.prefix, gone})
	a.over = append(a.over, gone)
	return a.commit(func(tx store.Tx) error { return errors.Join(p.saveRing(tx), tx.SetReclaimState(p.prefix, gone, nil)) })
}

// loadDecrees reads this node's parts in decrees of a range.
func (p *pool) loadDecrees(stored map[peer.ID][]byte) error {
	for gone, b := range stored {
		own, _, err := paxos.DecodeAcceptor(b)
		if err != nil {
			return err
		}
		p.setDecree(gone, own)
	}
	return nil
}
