package ipam

import (
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"weft/internal/health"
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store"
)

// ErrMessage is wrapped by Merge and Message for bytes that are not a message of an allocator.
var ErrMessage = errors.New("ipam: bad message")

// Gossip messages; numbers are unsigned varints (encoding/binary) unless stated otherwise:
//
//	+---------+----------
//	| version | sections …   section: kind (1 byte) | length | payload
//	| 1 byte  |              ring:    as ring.Append writes it, whole or in part
//	+---------+----------    states:  range, as appendPrefix writes it | as paxos.Append writes it
const (
	messageVersion = 1

	sectionRing   = 1
	sectionStates = 2 // of the bootstrap

	// chunkLen is the length that remains of MaxDelta for a payload without its range.
	chunkLen = MaxDelta - 1 - 1 - binary.MaxVarintLen16 - 1 - 16 - 1
)

// State returns all that this node knows of the ranges, for a node that has just joined or that checks what it may have
// missed: at most a few megabytes, for rings of ring.MaxTokens. It returns nil while memory may differ from the store,
// after a failed write.
func (a *Allocator) State() []byte {
	var msg []byte
	err := a.do(func() error {
		msg = []byte{messageVersion}
		for _, p := range a.pools {
			if p.ring.Bootstrapped() {
				msg = appendSection(msg, sectionRing, p.ring.Append(nil))
			} else {
				msg = appendSection(msg, sectionStates, paxos.Append(appendPrefix(nil, p.prefix), p.bootstrap.States()))
			}
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return msg
}

// Merge applies msg, a delta or the State of another node, as far as it is newer. The changes, and the changes that
// follow from them, are passed to Gossip.Broadcast before Merge returns, with nothing locked; nothing is broadcast
// where nothing was new.
//
// Errors are for the log, and are reported by Status too where an operator must act: ErrMessage, ring.ErrRange for a
// range that this node does not use, *ring.ClusterMismatchError where the other's range was bootstrapped separately.
// The rest of msg is merged.
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
		return a.mergeRing(incoming, fromGossip)
	case sectionStates:
		prefix, rest, err := cutPrefix(payload)
		if err != nil {
			return err
		}
		p := a.pool(prefix)
		if p == nil {
			return fmt.Errorf("ipam: bootstrap states of %s: %w", prefix, ring.ErrRange)
		}
		states, err := paxos.Decode(rest)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrMessage, err)
		}
		return a.mergeStates(p, states)
	}
	return fmt.Errorf("%w: section of kind %d, of a later weft", ErrMessage, kind)
}

// mergeRing merges a ring, whole or in part, and puts the changes in the outbox. Changes of this node's own tokens are
// durable before that. The caller holds mu.
func (a *Allocator) mergeRing(incoming *ring.Ring, from origin) error {
	p := a.pool(incoming.Range())
	if p == nil {
		return fmt.Errorf("ipam: ring of %s: %w", incoming.Range(), ring.ErrRange)
	}
	bootstrapped, reclaiming := p.ring.Bootstrapped(), p.tokensInReclaim()
	delta, conflicts, err := p.ring.Merge(a.cfg.Self, a.withoutFenced(p, incoming, from))
	if err != nil {
		a.reportClusterMismatch(p, err)
		return fmt.Errorf("ipam: %w", err)
	}
	for _, c := range conflicts {
		a.reportConflict(p, c)
	}
	if delta.Len() == 0 && bootstrapped == p.ring.Bootstrapped() {
		return nil
	}
	p.unsaved = true
	if !bootstrapped {
		p.bootstrappedAt = time.Now()
		p.fillIn()
	}
	if err := a.endDecided(p, reclaiming); err != nil {
		return err
	}
	ours := delta.Select(func(t ring.Token) bool { return t.Owner == a.cfg.Self }).Len() > 0
	if ours || len(conflicts) > 0 || !bootstrapped {
		if err := a.applyRing(p); err != nil {
			return err
		}
	}
	a.notifyWaiters()
	a.wake.Set()
	a.out.broadcast(ringDeltas(delta))
	return nil
}

// reportConflict counts and logs a conflict that a merge has resolved, and adds a finding to Status. The caller holds
// mu.
func (a *Allocator) reportConflict(p *pool, c ring.Conflict) {
	switch {
	case c.Reclaimed:
		a.counts.conflicts[conflictReclaimed].Add(1)
		p.events.report(health.SpaceReclaimed, "",
			"%s: while this node was away its addresses were reclaimed and now belong to node %s. Each lease that did not come back "+
				"is reported by itself.", p.prefix, a.name(c.Kept.Owner))
		a.cfg.Logger.Warn("addresses of this node were reclaimed", "peer", c.Kept.Owner, "addr", p.ring.Addr(c.Ours.Start))
		return
	case c.Ours.Owner == c.Theirs.Owner:
		a.counts.conflicts[conflictOldState].Add(1)
		p.events.report(health.StaleState, "Do not restore ipam.db from a backup; move it away instead.",
			"%s: node %s ran with an old copy of its state and received its later changes from other nodes.", p.prefix, a.name(c.Ours.Owner))
	default:
		a.counts.conflicts[conflictClaim].Add(1)
		p.events.report(health.OwnershipConflict, "Move ipam.db of that node away.",
			"%s: two nodes claimed the same addresses, %s and %s: one of them runs with an old copy of its state.",
			p.prefix, a.name(c.Ours.Owner), a.name(c.Theirs.Owner))
	}
	a.cfg.Logger.Error("conflict resolved", "peer", c.Theirs.Owner, "err", c.String())
}

// applyRing updates space and leases after a change of the ring that may concern this node's tokens, makes all of it
// durable, and puts the changes that this causes in the outbox. The caller holds mu.
func (a *Allocator) applyRing(p *pool) error {
	lost := p.syncSpace(&a.leases)
	for _, addr := range lost {
		a.lose(p, addr)
	}
	held := a.leaseHeld(p)
	delta := p.report(false)
	err := a.update(func(tx store.Tx) error {
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
	a.out.broadcast(ringDeltas(delta))
	return nil
}

// reportClusterMismatch counts a ring that was refused because of its cluster ID, and adds a finding to Status. The
// caller holds mu.
func (a *Allocator) reportClusterMismatch(p *pool, err error) {
	if mismatch, ok := errors.AsType[*ring.ClusterMismatchError](err); ok {
		a.counts.conflicts[conflictBootstrap].Add(1)
		p.events.report(health.RangeDividedTwice, "Move ipam.db away on the nodes of one of the two and restart them.",
			"%s was divided twice, by nodes that had not met (ours is %s, theirs %s).", p.prefix, mismatch.Ours, mismatch.Theirs)
	}
}

// ringDeltas returns the gossip messages that together hold delta.
func ringDeltas(delta *ring.Ring) [][]byte {
	chunks := delta.Chunks(chunkLen)
	for i, c := range chunks {
		chunks[i] = appendSection([]byte{messageVersion}, sectionRing, c)
	}
	return chunks
}

// stateDeltas returns the gossip messages that together hold bootstrap states of p.
func stateDeltas(p *pool, states []paxos.State) [][]byte {
	chunks := paxos.Chunks(states, chunkLen)
	for i, c := range chunks {
		chunks[i] = appendSection([]byte{messageVersion}, sectionStates, append(appendPrefix(nil, p.prefix), c...))
	}
	return chunks
}
