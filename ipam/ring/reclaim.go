package ring

import "weft/internal/peer"

// reignBits is how many bits of a version count the changes within a reign. The bits above count the reigns: how often
// the space of the token was taken from an owner that was gone for good. A version of a later reign is higher than any
// that the former owner can write, so all follow the one who reclaimed it, and the former owner when it comes back.
const reignBits = 40

// reign returns how often the space of a token with a version was reclaimed.
func reign(version uint64) uint64 { return version >> reignBits }

// Reign returns how often the space of t was reclaimed.
func (t Token) Epoch() uint64 { return reign(t.Version) }

// first returns the version of a new token of a reign.
func first(reign uint64) uint64 { return reign<<reignBits + 1 }

// Reclaim gives heir all that gone's tokens name and nobody else is known to own: a new reign begins there. It must have
// been agreed on by all other owners, who know what gone gave them last. The delta is as that of Grant.
func (r *Ring) Reclaim(gone, heir peer.ID) (delta *Ring) {
	var taken []Token
	for i, t := range r.tokens {
		if t.Owner != gone {
			continue
		}
		for _, s := range r.uncovered(t.Span(), i+1) {
			n := Token{Start: s.Start, End: s.End, Owner: heir, Version: first(t.Epoch() + 1), Free: r.capacity(s)}
			taken = append(taken, n)
		}
	}
	changed := make([]uint64, 0, len(taken))
	for _, t := range taken {
		if len(r.tokens) >= MaxTokens { // what lies behind others' tokens has to wait; the tokens themselves are replaced
			if _, known := r.find(t.Start); !known {
				continue
			}
		}
		r.put(t)
		changed = append(changed, t.Start)
	}
	return r.pick(changed)
}

// uncovered returns what of s is named by none of the tokens from i on.
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

// replaced reports whether t, which is not in r and would go to i, begins within a token that replaces it.
func (r *Ring) replaced(t Token, i int) bool {
	return i > 0 && r.tokens[i-1].Span().Contains(t.Start) && t.replacedBy(r.tokens[i-1])
}

// replacedBy reports whether t stands for nothing where outer holds: outer is of a later reign, or t was only to say which
// reign it is.
func (t Token) replacedBy(outer Token) bool {
	return outer.Epoch() > t.Epoch() || outer.Epoch() == t.Epoch() && t.Tombstone()
}

// bury drops tokens that begin within one of a later reign, as whoever wrote them had been replaced, and reports whether
// there were any. Nobody but its owner writes anything there, so a view that has not heard of what the owner gave away
// since cannot contradict it.
func (m *merger) bury() bool {
	var over []Token // that reach over the present start, the one of the latest reign on top: it ends first
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
		m.hollowOut(t)
	}
	return dropped
}

// Hollow reports whether t says of a span no more than that it is of a reign, or a later one, and who was last known to
// own it. Nobody is known to own what it names. Its version is below the first of the reign.
func (t Token) Tombstone() bool { return t.Version>>reignBits<<reignBits == t.Version }

// hollowOut keeps in mind that what t named is of its reign or a later one, where nothing else in the ring says so: t has
// been cut, and the news of what was cut off has not come. Without it what a former owner gave away, heard late, would
// pass for the present there. Where a token was cut another begins, so this one is replaced in time.
func (m *merger) hollowOut(t Token) {
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
			m.write(Token{Start: s.Start, End: s.End, Owner: t.Owner, Version: t.Epoch() << reignBits})
		}
	}
}
