package ring

import "weft/internal/peer"

// Reclaim assigns all addresses that the tokens of dead cover and no other node is known to own to newOwner, in a new
// epoch. All other owners must have agreed to it first, because they know the last grants of dead. The delta is as that
// of Grant.
func (r *Ring) Reclaim(dead, newOwner peer.ID) (delta *Ring) {
	var taken []Token
	for i, t := range r.tokens {
		if t.Owner != dead || t.Epoch() >= maxEpoch {
			continue
		}
		for _, s := range r.uncovered(t.Span(), i+1) {
			n := Token{Start: s.Start, End: s.End, Owner: newOwner, Version: first(t.Epoch() + 1), Free: r.capacity(s)}
			taken = append(taken, n)
		}
	}
	changed := make([]uint64, 0, len(taken))
	for _, t := range taken {
		if len(r.tokens) >= MaxTokens { // only existing tokens are replaced; spans behind others' tokens have to wait
			if _, known := r.find(t.Start); !known {
				continue
			}
		}
		r.put(t)
		changed = append(changed, t.Start)
	}
	return r.pick(changed)
}

// uncovered returns the parts of s that none of the tokens from index i on covers.
func (r *Ring) uncovered(s Span, i int) (spans []Span) {
	at := s.Start
	for ; i < len(r.tokens) && r.tokens[i].Start < s.End; i++ {
		if next := r.tokens[i]; next.Start > at {
			spans = append(spans, Span{at, next.Start})
		}
		at = max(at, r.tokens[i].End)
	}
	if at < s.End {
		spans = append(spans, Span{at, s.End})
	}
	return spans
}

// replaced reports whether t, which is not in r and would be inserted at i, begins within a token that replaces it.
func (r *Ring) replaced(t Token, i int) bool {
	return i > 0 && r.tokens[i-1].Span().Contains(t.Start) && t.replacedBy(r.tokens[i-1])
}

// replacedBy reports whether t has no meaning within outer: outer is of a later epoch, or t is a tombstone of the same
// one.
func (t Token) replacedBy(outer Token) bool {
	return outer.Epoch() > t.Epoch() || outer.Epoch() == t.Epoch() && t.Tombstone()
}

// dropReplaced drops tokens that begin within one of a later epoch, because their writers had been replaced, and
// reports whether there were any. Only the owner writes tokens there, so a view that does not know the later grants of
// that owner cannot contradict it.
func (m *merger) dropReplaced() bool {
	var over []Token // tokens that reach over the present start; the one of the latest epoch is on top and ends first
	var rests []Token
	dropped := false
	kept := m.ring.tokens[:0]
	for _, t := range m.ring.tokens {
		for len(over) > 0 && over[len(over)-1].End <= t.Start {
			over = over[:len(over)-1]
		}
		if n := len(over); n > 0 && t.replacedBy(over[n-1]) {
			if t.Owner == m.self && !t.Tombstone() {
				m.conflicts = append(m.conflicts, Conflict{Ours: t, Theirs: over[n-1], Kept: over[n-1], Reclaimed: true})
			}
			dropped = true
			t.Start = over[n-1].End
			rests = append(rests, t)
			continue
		}
		for len(over) > 0 && over[len(over)-1].End <= t.End {
			over = over[:len(over)-1]
		}
		over = append(over, t)
		kept = append(kept, t)
	}
	m.ring.tokens = kept
	for _, t := range rests {
		m.addTombstones(t)
	}
	return dropped
}

// Tombstone reports whether t records only that its span is of an epoch or a later one, and its last known owner. The
// present owner of the span is unknown. The version of a tombstone is below the first of its epoch.
func (t Token) Tombstone() bool { return t.Version>>epochBits<<epochBits == t.Version }

// addTombstones records that the span of t is of its epoch or a later one, where nothing else in the ring does: t has
// been cut, and the token for the part that was cut off has not arrived. Without it an old grant of a former owner that
// arrives late would be read as current there. Another token begins where a token was cut, so a tombstone is replaced
// in time.
func (m *merger) addTombstones(t Token) {
	if t.Epoch() == 0 || t.Start >= t.End {
		return
	}
	i, _ := m.ring.find(t.Start)
	rest := t.Span()
	for _, outer := range m.ring.tokens[:i] {
		if outer.Epoch() >= t.Epoch() {
			rest.Start = max(rest.Start, outer.End)
		}
	}
	i, _ = m.ring.find(rest.Start)
	for _, s := range m.ring.uncovered(rest, i) {
		if len(m.ring.tokens) < MaxTokens {
			m.write(Token{Start: s.Start, End: s.End, Owner: t.Owner, Version: t.Epoch() << epochBits})
		}
	}
}
