package ring

import "weft/internal/peer"

// reignBits is how many bits of a version count the changes within a reign. The bits above count the reigns: how often
// the space of the token was taken from an owner that was gone for good. A version of a later reign is higher than any
// that the former owner can write, so all follow the one who reclaimed it, and the former owner when it comes back.
const reignBits = 40

// reign returns how often the space of a token with a version was reclaimed.
func reign(version uint64) uint64 { return version >> reignBits }

// Reign returns how often the space of t was reclaimed.
func (t Token) Reign() uint64 { return reign(t.Version) }

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
		for _, s := range r.unclaimed(i) {
			n := Token{Start: s.Start, End: s.End, Owner: heir, Version: first(t.Reign() + 1), Free: r.capacity(s)}
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

// unclaimed returns the spans that token i names and within which no other token is known.
func (r *Ring) unclaimed(i int) (spans []Span) {
	t := r.tokens[i]
	at := t.Start
	for j := i + 1; j < len(r.tokens) && r.tokens[j].Start < t.End; j++ {
		if next := r.tokens[j]; next.Start > at {
			spans = append(spans, Span{at, next.Start})
		}
		at = max(at, r.tokens[j].End)
	}
	if at < t.End {
		spans = append(spans, Span{at, t.End})
	}
	return spans
}

// replaced reports whether t, which is not in r and would go to i, begins within a token of a later reign.
func (r *Ring) replaced(t Token, i int) bool {
	return i > 0 && r.tokens[i-1].Span().Contains(t.Start) && r.tokens[i-1].Reign() > t.Reign()
}

// bury drops tokens that begin within one of a later reign: whoever wrote them had been replaced. Nobody but its owner
// writes anything there, so a view that has not heard of what the owner gave away since cannot contradict it.
func (m *merger) bury() {
	var over []Token // that reach over the present start, the one of the latest reign on top: it ends first
	kept := m.ring.tokens[:0]
	for _, t := range m.ring.tokens {
		for len(over) > 0 && over[len(over)-1].End <= t.Start {
			over = over[:len(over)-1]
		}
		if n := len(over); n > 0 && over[n-1].Reign() > t.Reign() {
			if t.Owner == m.self {
				m.conflicts = append(m.conflicts, Conflict{Ours: t, Theirs: over[n-1], Kept: over[n-1], Reclaimed: true})
			}
			continue
		}
		for len(over) > 0 && over[len(over)-1].End <= t.End {
			over = over[:len(over)-1]
		}
		over = append(over, t)
		kept = append(kept, t)
	}
	m.ring.tokens = kept
}
