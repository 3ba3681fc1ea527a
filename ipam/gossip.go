package ipam

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"weft/internal/peer"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store"
)

// ErrMessage is wrapped by Merge for bytes that are not a message of an allocator.
var ErrMessage = errors.New("ipam: bad message")

// What is gossiped; numbers are unsigned varints (encoding/binary) where not said otherwise:
//
//	+---------+----------
//	| version | sections …   section: kind (1 byte) | length | payload
//	| 1 byte  |              ring:    as ring.Append writes it, whole or in part
//	+---------+----------    votes:   range, as appendPrefix writes it | as paxos.Append writes it
const (
	messageVersion = 1

	sectionRing  = 1
	sectionVotes = 2

	// chunkLen is what remains of MaxDelta for a payload without its range.
	chunkLen = MaxDelta - 1 - 1 - binary.MaxVarintLen16 - 1 - 16 - 1
)

// retellPause is how often at most a node answers votes of a founding that is over.
const retellPause = time.Second

// retellers is about how many nodes do so, however many there are: votes linger in the queues of many nodes for a while.
const retellers = 3

// State returns all that this node knows of the ranges, for a node that hears of them for the first time or checks what it
// may have missed: at most a few megabytes, for rings of ring.MaxTokens. It returns nil while the state cannot be trusted
// after a failed write.
func (a *Allocator) State() []byte {
	var msg []byte
	err := a.do(func() error {
		msg = []byte{messageVersion}
		for _, p := range a.pools {
			if p.ring.Bootstrapped() {
				msg = appendSection(msg, sectionRing, p.ring.Append(nil))
			} else {
				msg = appendSection(msg, sectionVotes, paxos.Append(appendPrefix(nil, p.prefix), p.votes.States()))
			}
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return msg
}

// Merge applies msg, a delta or the State of another node, as far as it is newer. What was new to this node, and what
// follows from it, is passed to Gossip.Broadcast before Merge returns, with nothing locked.
//
// Errors are for the log, and also in Status where they need a person: ErrMessage, ring.ErrRange for a range that this node
// does not use, *ring.ClusterMismatchError where the other's ring was bootstrapped apart from this one. The rest of msg is merged.
func (a *Allocator) Merge(msg []byte) error {
	if len(msg) == 0 || msg[0] != messageVersion {
		return fmt.Errorf("%w: not of version %d", ErrMessage, messageVersion)
	}
	var errs []error
	err := a.do(func() error {
		for rest := msg[1:]; len(rest) > 0; {
			kind, payload, after, err := cutSection(rest)
			if err != nil {
				errs = append(errs, err)
				break
			}
			err = a.mergeSection(kind, payload)
			if a.broken != nil {
				return err
			}
			if err != nil {
				errs = append(errs, err)
			}
			rest = after
		}
		return nil
	})
	if err != nil {
		return err
	}
	return errors.Join(errs...)
}

// mergeSection merges one section of a message. The caller holds mu.
func (a *Allocator) mergeSection(kind byte, payload []byte) error {
	switch kind {
	case sectionRing:
		incoming, err := ring.Decode(payload)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMessage, err)
		}
		return a.mergeRing(incoming, gossiped)
	case sectionVotes:
		prefix, rest, err := cutPrefix(payload)
		if err != nil {
			return err
		}
		p := a.pool(prefix)
		if p == nil {
			return fmt.Errorf("ipam: votes on %s: %w", prefix, ring.ErrRange)
		}
		votes, err := paxos.Decode(rest)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMessage, err)
		}
		return a.mergeVotes(p, votes)
	}
	return fmt.Errorf("%w: section of kind %d, of a newer weft", ErrMessage, kind)
}

// mergeRing merges a ring, whole or in part, and puts what was new in the outbox. What concerns this node is durable before
// that. The caller holds mu.
func (a *Allocator) mergeRing(incoming *ring.Ring, how source) error {
	p := a.pool(incoming.Range())
	if p == nil {
		return fmt.Errorf("ipam: ring of %s: %w", incoming.Range(), ring.ErrRange)
	}
	founded, estates := p.ring.Bootstrapped(), p.estates()
	delta, conflicts, err := p.ring.Merge(a.cfg.Self, a.fence(p, incoming, how))
	if err != nil {
		a.warnForeign(p, err)
		return fmt.Errorf("ipam: %w", err)
	}
	for _, c := range conflicts {
		if c.Reclaimed {
			a.counts.conflicts[conflictReclaimed].Add(1)
			p.warn(fmt.Sprintf("%s: while this node was away what it owned was reclaimed, and is node %s's now: the addresses leased here "+
				"that were of it are gone, attach their owners again", p.prefix, a.name(c.Kept.Owner)))
			a.cfg.Logger.Warn("ipam: space was reclaimed", "peer", c.Kept.Owner, "addr", p.ring.Addr(c.Ours.Start))
			continue
		}
		if c.Ours.Owner == c.Theirs.Owner {
			a.counts.conflicts[conflictOldState].Add(1)
			p.warn(fmt.Sprintf("%s: node %s ran with an old copy of its state, and has learnt from the others what it did since: restore "+
				"no ipam.db from a backup, move it away instead", p.prefix, a.name(c.Ours.Owner)))
		} else {
			a.counts.conflicts[conflictClaim].Add(1)
			p.warn(fmt.Sprintf("%s: two nodes claimed the same addresses, %s and %s: one of them runs with a copy of old state; "+
				"move its ipam.db away", p.prefix, a.name(c.Ours.Owner), a.name(c.Theirs.Owner)))
		}
		a.cfg.Logger.Error("ipam: contradiction settled", "peer", c.Theirs.Owner, "err", c.String())
	}
	if delta.Len() == 0 && founded == p.ring.Bootstrapped() {
		return nil
	}
	p.stale = true
	if !founded {
		p.adopted = a.cfg.Now()
		p.fillIn()
	}
	if err := a.endDecrees(p, estates); err != nil {
		return err
	}
	ours := delta.Select(func(t ring.Token) bool { return t.Owner == a.cfg.Self }).Len() > 0
	if ours || len(conflicts) > 0 || !founded {
		if err := a.settle(p); err != nil {
			return err
		}
	}
	a.notify()
	a.poke()
	a.broadcast(ringDeltas(delta))
	return nil
}

// settle makes space and leases follow a ring in which this node's tokens may have changed, and writes all of it. What that
// changes in turn is put out.
func (a *Allocator) settle(p *pool) error {
	lost := p.adopt(&a.leases)
	for _, addr := range lost {
		owner := a.leases.byAddr[addr].Holder
		p.warn(fmt.Sprintf("%s, leased by %q, is another node's now: that lease is gone", addr, owner))
		a.cfg.Logger.Error("ipam: lease lost with its range", "addr", addr, "owner", owner)
		a.leases.remove(addr)
	}
	held := a.leaseHeld(p)
	delta := p.report(false)
	err := a.commit(func(tx store.Tx) error {
		if err := p.saveRing(tx); err != nil {
			return err
		}
		if err := deleteAll(tx, lost); err != nil {
			return err
		}
		return putAll(tx, held)
	})
	if err != nil {
		return err
	}
	a.broadcast(ringDeltas(delta))
	return nil
}

// warnForeign notes for Status where a ring was refused that a person must do something about.
func (a *Allocator) warnForeign(p *pool, err error) {
	var foreign *ring.ClusterMismatchError
	if errors.As(err, &foreign) {
		a.counts.conflicts[conflictFounding].Add(1)
		p.warn(fmt.Sprintf("%s was divided twice, by nodes that had not met (ours is %s, theirs %s): move ipam.db away on the nodes "+
			"of one of the two and restart them", p.prefix, foreign.Ours, foreign.Theirs))
	}
}

// mergeVotes merges votes of the founding. Whoever still votes on what is long decided is told what became of it.
func (a *Allocator) mergeVotes(p *pool, votes []paxos.State) error {
	if p.ring.Bootstrapped() {
		a.broadcast(a.retell(p, votes))
		return nil
	}
	metBefore, _ := p.votes.Waiting()
	before := p.votes.Own().Seq
	changed, err := p.votes.Merge(votes)
	if err != nil {
		return fmt.Errorf("ipam: %w", err)
	}
	if len(changed) == 0 {
		return nil
	}
	if p.votes.Own().Seq != before {
		if err := a.commit(p.saveVote); err != nil {
			return err
		}
	}
	if met, needed := p.votes.Waiting(); metBefore < met && met >= needed {
		a.poke()
	}
	a.notify()
	a.broadcast(voteDeltas(p, changed))
	founding, err := a.found(p)
	a.broadcast(founding)
	return err
}

// retell returns what the voters own, for which they need not wait until they exchange whole states with somebody.
func (a *Allocator) retell(p *pool, votes []paxos.State) [][]byte {
	now := a.cfg.Now()
	if now.Sub(p.retold) < retellPause || a.rand.IntN(max(len(p.ring.Totals()), retellers)) >= retellers {
		return nil
	}
	p.retold = now
	voters := make(map[peer.ID]bool)
	for _, v := range votes {
		voters[v.Node] = true
	}
	part := p.ring.Select(func(t ring.Token) bool { return voters[t.Owner] })
	if part.Len() == 0 {
		first := true
		part = p.ring.Select(func(ring.Token) bool { was := first; first = false; return was })
	}
	return ringDeltas(part)
}

// ringDeltas returns what to gossip so that others learn all of delta.
func ringDeltas(delta *ring.Ring) [][]byte {
	chunks := delta.Chunks(chunkLen)
	for i, c := range chunks {
		chunks[i] = appendSection([]byte{messageVersion}, sectionRing, c)
	}
	return chunks
}

func voteDeltas(p *pool, votes []paxos.State) [][]byte {
	chunks := paxos.Chunks(votes, chunkLen)
	for i, c := range chunks {
		chunks[i] = appendSection([]byte{messageVersion}, sectionVotes, append(appendPrefix(nil, p.prefix), c...))
	}
	return chunks
}
