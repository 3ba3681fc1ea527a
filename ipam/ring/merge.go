package ring

import (
	"fmt"

	"weft/internal/peer"
)

// ClusterMismatchError is returned where two rings of one range were bootstrapped separately. Neither is changed.
type ClusterMismatchError struct{ Ours, Theirs ClusterID }

// Error implements error.
func (e *ClusterMismatchError) Error() string {
	return fmt.Sprintf("ring: cluster ID mismatch: ours is %s, theirs %s", e.Ours, e.Theirs)
}

// Conflict is a contradiction that Merge found and resolved. Correct nodes that keep their state never cause one. The
// cause is a node that runs with a copy of another node's state or with an old copy of its own, or a malicious node.
type Conflict struct {
	Ours   Token // the token that this node held
	Theirs Token // the token that was merged
	Kept   Token // the one that is kept; every node resolves to the same
	// Reclaimed: there is no contradiction. The others reclaimed the tokens of this node while it was away.
	Reclaimed bool
}

// String describes the two tokens and the one that was kept.
func (c Conflict) String() string {
	return fmt.Sprintf("ring: token [%d, %d) of %s at version %d contradicts [%d, %d) of %s at version %d: kept that of %s",
		c.Ours.Start, c.Ours.End, c.Ours.Owner, c.Ours.Version,
		c.Theirs.Start, c.Theirs.End, c.Theirs.Owner, c.Theirs.Version, c.Kept.Owner)
}

// Merge applies the newer tokens of incoming, a whole ring or a few tokens of one; self is the node that r belongs to.
// The delta holds every token that changed in r, to be published; it is empty where nothing was new.
//
// Of two tokens with one start the higher version wins. For tokens that correct nodes write this makes merging
// commutative, associative and idempotent, so views converge whatever the order and number of messages. Other
// contradictions are resolved and returned as conflicts, never as an error: the claim under which addresses are in use
// wins, then the higher version, then the lower owner ID. Where self loses that way it stops owning at once. Where it
// wins over a higher version it writes a version above, which makes every other node follow; if there is none above, it
// loses. A token of a later epoch wins over all tokens of earlier ones; where self loses that way the conflict is
// returned as well, with Reclaimed set.
//
// The errors are ErrRange, *ClusterMismatchError and ErrFull; r is unchanged then. The caller must write r to disk
// before it uses tokens that became self's.
func (r *Ring) Merge(self peer.ID, incoming *Ring) (delta *Ring, conflicts []Conflict, err error) {
	if err := r.mergeable(incoming); err != nil {
		return nil, nil, err
	}
	if incoming.Bootstrapped() {
		r.clusterID = incoming.clusterID
	}
	m := merger{ring: r, self: self}
	for _, t := range incoming.tokens {
		m.mergeToken(t)
	}
	for m.dropReplaced() {
	}
	m.overlaps()
	return r.pick(m.changed), m.conflicts, nil
}

// mergeable returns why incoming may not be merged at all; nil where it may.
func (r *Ring) mergeable(incoming *Ring) error {
	if incoming.prefix != r.prefix {
		return fmt.Errorf("%w: ours is %s, theirs %s", ErrRange, r.prefix, incoming.prefix)
	}
	if r.Bootstrapped() && incoming.Bootstrapped() && r.clusterID != incoming.clusterID {
		return &ClusterMismatchError{Ours: r.clusterID, Theirs: incoming.clusterID}
	}
	if len(r.tokens)+len(incoming.tokens) <= MaxTokens {
		return nil
	}
	count := len(r.tokens)
	for _, t := range incoming.tokens {
		if _, known := r.find(t.Start); !known {
			count++
		}
	}
	if count > MaxTokens {
		return fmt.Errorf("%w: %d after the merge", ErrFull, count)
	}
	return nil
}

// merger is the state of one call of Merge.
type merger struct {
	ring      *Ring
	self      peer.ID
	changed   []uint64
	conflicts []Conflict
}

// mergeToken merges one incoming token by its start.
func (m *merger) mergeToken(t Token) {
	i, known := m.ring.find(t.Start)
	if !known {
		if !m.ring.replaced(t, i) {
			m.write(t)
		}
		return
	}
	cur := m.ring.tokens[i]
	switch {
	case t == cur || t.Version < cur.Version:
	case epochOf(t.Version) > epochOf(cur.Version):
		m.write(t)
		if cur.Owner == m.self && t.Owner != m.self {
			m.conflicts = append(m.conflicts, Conflict{Ours: cur, Theirs: t, Kept: t, Reclaimed: true})
		}
	case cur.Tombstone() && t.Version > cur.Version:
		m.write(t)
	case t.Version == cur.Version && t.Tombstone():
		if m.ring.prefer(t, cur) {
			m.write(t)
		}
	case t.Version == cur.Version:
		m.resolve(cur, t, m.ring.prefer(t, cur))
	case cur.Owner != m.self:
		m.write(t)
	case t.Owner == m.self: // written by an earlier run of this node, which has lost that state since
		m.resolve(cur, t, true)
	default:
		m.resolve(cur, t, !m.ring.inUse(cur) || m.ring.inUse(t))
	}
}

// resolve records that cur, which r holds, and t contradict each other, and writes the one that is kept.
func (m *merger) resolve(cur, t Token, theirs bool) {
	kept := cur
	above, ok := next(t.Version)
	if theirs || t.Version > cur.Version && !ok {
		kept = t
		m.write(t)
	} else if t.Version > cur.Version {
		kept.Version = above
		m.write(kept)
	}
	m.conflicts = append(m.conflicts, Conflict{Ours: cur, Theirs: t, Kept: kept})
}

// write puts t into the ring.
func (m *merger) write(t Token) {
	cut := m.ring.put(t)
	m.changed = append(m.changed, t.Start)
	cut.Start = t.End
	m.addTombstones(cut)
}

// overlaps resolves tokens of other nodes in the middle of self's, which only self could have created. (In a ring of
// other nodes a token that reaches over the next one is only stale.)
func (m *merger) overlaps() {
	for i := 0; i < len(m.ring.tokens); i++ {
		mine := m.ring.tokens[i]
		if mine.Owner == m.self && !mine.Tombstone() && m.ring.effective(i).End < mine.End {
			m.split(i)
		}
	}
}

// split cuts token i, self's, around all tokens that start within it. Tokens that lose against it become self's; self
// keeps the gaps between the others.
func (m *merger) split(i int) {
	mine := m.ring.tokens[i]
	var gaps []Span
	at := mine.Start
	for j := i + 1; j < len(m.ring.tokens) && m.ring.tokens[j].Start < mine.End; j++ {
		inner := m.ring.tokens[j]
		if inner.Start > at {
			gaps = append(gaps, Span{at, inner.Start})
		}
		at = max(at, inner.End)
		if inner.Owner != m.self || inner.Tombstone() {
			m.contest(j, mine)
		}
	}
	if at < mine.End {
		gaps = append(gaps, Span{at, mine.End})
	}
	for _, gap := range gaps {
		t := Token{Start: gap.Start, End: gap.End, Owner: m.self, Version: first(epochOf(mine.Version))}
		if gap.Start == mine.Start {
			above, ok := next(mine.Version)
			if !ok {
				continue
			}
			t.Version = above
		}
		t.Free = min(mine.Free, m.ring.capacity(gap))
		m.write(t)
	}
}

// contest resolves which node owns token j, another node's, which lies in mine. Where it is in use it wins, even if
// mine is as well: it is the later of the two, cut from the other.
func (m *merger) contest(j int, mine Token) {
	inner := m.ring.tokens[j]
	if epochOf(inner.Version) > epochOf(mine.Version) {
		m.conflicts = append(m.conflicts, Conflict{Ours: mine, Theirs: inner, Kept: inner, Reclaimed: true})
		return
	}
	theirs := !inner.Tombstone() && (m.ring.inUse(inner) || !m.ring.inUse(mine) && !less(inner, mine))
	kept := inner
	if above, ok := next(inner.Version); ok && !theirs {
		kept.Owner = m.self
		kept.Version = above
		kept.End = min(kept.End, mine.End)
		kept.Free = m.ring.capacity(kept.Span())
		m.write(kept)
	}
	m.conflicts = append(m.conflicts, Conflict{Ours: mine, Theirs: inner, Kept: kept})
}

// prefer reports whether t wins over u, which has the same start and version. It is a total order, so every node
// resolves the same way, in whatever order it learns of the two.
func (r *Ring) prefer(t, u Token) bool {
	if a, b := r.inUse(t), r.inUse(u); a != b {
		return a
	}
	if c := t.Owner.Compare(u.Owner); c != 0 {
		return c < 0
	}
	if t.End != u.End {
		return t.End < u.End
	}
	return t.Free < u.Free
}

// less reports whether t loses against u where both or neither are in use: by version, then by the lower owner.
func less(t, u Token) bool {
	if t.Version != u.Version {
		return t.Version < u.Version
	}
	return t.Owner.Compare(u.Owner) > 0
}

// inUse reports whether the owner of t has reported leases under it.
func (r *Ring) inUse(t Token) bool { return t.Free < r.capacity(t.Span()) }
