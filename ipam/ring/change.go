package ring

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"weft/internal/peer"
)

// FoundingOf returns the identity of the founding of r's range by founders, in any order.
func (r *Ring) ClusterIDOf(founders []peer.ID) ClusterID {
	h := sha256.New()
	h.Write([]byte("weft ring " + r.prefix.String()))
	for _, id := range normal(founders) {
		h.Write(id[:])
	}
	return ClusterID(h.Sum(nil)[:len(ClusterID{})])
}

// Found divides the range equally among founders: shares differ by one address at most, whatever their number, and are
// the same wherever Found is called with the same founders in whatever order. Where founders outnumber the addresses,
// the last of them get nothing.
//
// On a ring that has heard of this founding already Found changes nothing: see FillIn. On a ring founded otherwise it returns a *ForeignError. The delta holds what was added.
func (r *Ring) Bootstrap(founders []peer.ID) (delta *Ring, err error) {
	founders = normal(founders)
	if len(founders) == 0 {
		return nil, errors.New("ring: no founders")
	}
	founding := r.ClusterIDOf(founders)
	switch {
	case r.founding == founding:
		return r.pick(nil), nil
	case r.Bootstrapped():
		return nil, &ClusterMismatchError{Ours: r.founding, Theirs: founding}
	}
	r.founding = founding
	r.tokens = r.shares(founders)
	return r.Clone(), nil
}

// FillIn adds the shares of a founding to a ring that has heard of it only in part: those within which it knows nothing,
// as where it knows something the share may have moved on. It reports whether founders, in any order, are those of r's
// founding; where they are not, r stays as it is.
func (r *Ring) FillIn(founders []peer.ID) bool {
	if !r.Bootstrapped() || r.ClusterIDOf(founders) != r.founding {
		return false
	}
	for _, t := range r.shares(normal(founders)) {
		if i, _ := r.find(t.Start); i == len(r.tokens) || r.tokens[i].Start >= t.End {
			r.put(t)
		}
	}
	return true
}

// shares returns the tokens with which founders, in normal order, begin.
func (r *Ring) shares(founders []peer.ID) []Token {
	n := uint64(len(founders))
	share, longer := r.Size()/n, r.Size()%n
	tokens := make([]Token, 0, len(founders))
	var start uint64
	for i, id := range founders {
		end := start + share
		if uint64(i) < longer {
			end++
		}
		if end == start {
			break
		}
		t := Token{Start: start, End: end, Owner: id, Version: 1}
		t.Free = r.capacity(t.Span())
		tokens = append(tokens, t)
		start = end
	}
	return tokens
}

// Grant gives the span, all of which self must own, to another node. Tokens that reach out of the span are cut; free
// counts the free addresses of a span, as for ReportFree. The returned delta holds every token that changed: the caller
// must have r written to disk before it lets the delta out, for whoever learns of it may lease what it names.
func (r *Ring) Grant(self, to peer.ID, span Span, free func(Span) uint64) (delta *Ring, err error) {
	if to.IsZero() || to == self || span.Len() == 0 {
		return nil, fmt.Errorf("ring: grant of [%d, %d) to %q", span.Start, span.End, to)
	}
	if !r.owns(self, span) {
		return nil, fmt.Errorf("%w: [%d, %d) is not all of %s", ErrNotOwner, span.Start, span.End, self)
	}
	if cuts := r.cuts(span.Start) + r.cuts(span.End); len(r.tokens)+cuts > MaxTokens {
		return nil, fmt.Errorf("%w: no grant beyond %d", ErrFull, MaxTokens)
	}
	changed := r.cut(span.Start)
	changed = append(changed, r.cut(span.End)...)
	for i := range r.tokens {
		if t := &r.tokens[i]; t.Start >= span.Start && t.Start < span.End {
			t.Owner = to
			if !slices.Contains(changed, t.Start) {
				t.Version++
				changed = append(changed, t.Start)
			}
		}
	}
	for _, start := range changed {
		i, _ := r.find(start)
		t := &r.tokens[i]
		t.Free = min(free(t.Span()), r.capacity(t.Span()))
	}
	return r.pick(changed), nil
}

// ReportFree sets the free counts of self's tokens to what free returns for their spans, and bumps the versions of those
// for which worth, given the old count, the new one and the number of addresses that may be given out, says that the
// change should be told. A nil worth tells every change. The delta holds what changed.
func (r *Ring) ReportFree(self peer.ID, free func(Span) uint64, worth func(was, is, capacity uint64) bool) (delta *Ring) {
	var changed []uint64
	for i := range r.tokens {
		t := &r.tokens[i]
		if t.Owner != self || t.Tombstone() {
			continue
		}
		capacity := r.capacity(t.Span())
		is := min(free(t.Span()), capacity)
		if is == t.Free || worth != nil && !worth(t.Free, is, capacity) {
			continue
		}
		t.Free = is
		t.Version++
		changed = append(changed, t.Start)
	}
	return r.pick(changed)
}

// owns reports whether self owns all of span.
func (r *Ring) owns(self peer.ID, span Span) bool {
	for _, s := range r.Owned(self) {
		if s.Start <= span.Start && span.End <= s.End {
			return true
		}
	}
	return false
}

// cuts is how many tokens cut would add at offset.
func (r *Ring) cuts(offset uint64) int {
	if t, ok := r.TokenAt(offset); ok && t.Start != offset {
		return 1
	}
	return 0
}

// cut makes a token start at offset, where one that holds it does not already, and returns the starts of those changed.
func (r *Ring) cut(offset uint64) []uint64 {
	i, found := r.find(offset)
	if found || i == 0 || r.tokens[i-1].End <= offset {
		return nil
	}
	low := &r.tokens[i-1]
	high := Token{Start: offset, End: low.End, Owner: low.Owner, Version: first(reign(low.Version))}
	low.End = offset
	low.Version++
	r.tokens = slices.Insert(r.tokens, i, high)
	return []uint64{r.tokens[i-1].Start, offset}
}

// put inserts t or replaces the token of the same start, which it returns; the zero Token where there was none.
func (r *Ring) put(t Token) (old Token) {
	i, found := r.find(t.Start)
	if found {
		old, r.tokens[i] = r.tokens[i], t
		return old
	}
	r.tokens = slices.Insert(r.tokens, i, t)
	return Token{}
}

// pick returns a ring with the tokens at starts only.
func (r *Ring) pick(starts []uint64) *Ring {
	delta := &Ring{prefix: r.prefix, founding: r.founding}
	slices.Sort(starts)
	for _, start := range slices.Compact(starts) {
		if i, found := r.find(start); found {
			delta.tokens = append(delta.tokens, r.tokens[i])
		}
	}
	return delta
}

// normal returns ids sorted, without duplicates and the zero ID.
func normal(ids []peer.ID) []peer.ID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, peer.ID.Compare)
	ids = slices.Compact(ids)
	return slices.DeleteFunc(ids, peer.ID.IsZero)
}
