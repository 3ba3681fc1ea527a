package ring

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"weft/internal/peer"
)

// ClusterIDOf returns the cluster ID of r's range when bootstrapNodes, in any order, divide it.
func (r *Ring) ClusterIDOf(bootstrapNodes []peer.ID) ClusterID {
	h := sha256.New()
	h.Write([]byte("weft ring " + r.prefix.String()))
	for _, id := range normal(bootstrapNodes) {
		h.Write(id[:])
	}
	return ClusterID(h.Sum(nil)[:len(ClusterID{})])
}

// Bootstrap divides the range equally among bootstrapNodes: shares differ by at most one address, whatever their
// number, and are the same wherever Bootstrap is called with the same nodes, in any order. Where there are more nodes
// than addresses, the last nodes get no share. The delta holds the tokens that were added.
//
// On a ring that already has this cluster ID Bootstrap changes nothing: see FillIn. On a ring with another cluster ID
// it returns a *ClusterMismatchError.
func (r *Ring) Bootstrap(bootstrapNodes []peer.ID) (delta *Ring, err error) {
	bootstrapNodes = normal(bootstrapNodes)
	if len(bootstrapNodes) == 0 {
		return nil, errors.New("ring: no bootstrap nodes")
	}
	clusterID := r.ClusterIDOf(bootstrapNodes)
	switch {
	case r.clusterID == clusterID:
		return r.pick(nil), nil
	case r.Bootstrapped():
		return nil, &ClusterMismatchError{Ours: r.clusterID, Theirs: clusterID}
	}
	r.clusterID = clusterID
	r.tokens = r.shares(bootstrapNodes)
	return r.Clone(), nil
}

// FillIn adds the first shares to a bootstrapped ring that knows only part of its tokens: those shares within which it
// knows no token, because where it knows one the share may have been granted since. It reports whether bootstrapNodes,
// in any order, match r's cluster ID; where they do not, r stays as it is.
func (r *Ring) FillIn(bootstrapNodes []peer.ID) bool {
	if !r.Bootstrapped() || r.ClusterIDOf(bootstrapNodes) != r.clusterID {
		return false
	}
	for _, t := range r.shares(normal(bootstrapNodes)) {
		if i, _ := r.find(t.Start); i == len(r.tokens) || r.tokens[i].Start >= t.End {
			r.put(t)
		}
	}
	return true
}

// shares returns the first tokens of bootstrapNodes, which are in normal order.
func (r *Ring) shares(bootstrapNodes []peer.ID) []Token {
	n := uint64(len(bootstrapNodes))
	share, longer := r.Size()/n, r.Size()%n
	tokens := make([]Token, 0, len(bootstrapNodes))
	var start uint64
	for i, id := range bootstrapNodes {
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

// Grant hands the span, all of which self must own, over to another node. Tokens that reach out of the span are cut;
// free counts the free addresses of a span, as for ReportFree. The returned delta holds every token that changed. The
// caller must write r to disk before it sends the delta, because a node that learns of the delta may lease the
// addresses in it.
func (r *Ring) Grant(self, to peer.ID, span Span, free func(Span) uint64) (delta *Ring, err error) {
	if to.IsZero() || to == self || span.Len() == 0 {
		return nil, fmt.Errorf("ring: grant of [%d, %d) to %q", span.Start, span.End, to)
	}
	if !r.owns(self, span) {
		return nil, fmt.Errorf("%w: [%d, %d) is not all of %s", ErrNotOwner, span.Start, span.End, self)
	}
	for i, t := range r.tokens {
		if _, ok := next(t.Version); !ok && t.Start < span.End && span.Start < r.effective(i).End {
			return nil, fmt.Errorf("%w: token %d has version %d", ErrFinal, t.Start, t.Version)
		}
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

// ReportFree sets the free counts of self's tokens to the values that free returns for their spans. It increments the
// versions of the tokens for which worth, called with the old count, the new count and the number of addresses that may
// be allocated, reports that the change should be published. A nil worth publishes every change. The delta holds the
// tokens that changed.
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
		above, ok := next(t.Version)
		if !ok {
			continue
		}
		t.Free, t.Version = is, above
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

// cuts returns how many tokens cut would add at offset.
func (r *Ring) cuts(offset uint64) int {
	if t, ok := r.TokenAt(offset); ok && t.Start != offset {
		return 1
	}
	return 0
}

// cut splits the token that covers offset so that a token starts there, unless one does already, and returns the starts
// of the tokens that changed.
func (r *Ring) cut(offset uint64) []uint64 {
	i, found := r.find(offset)
	if found || i == 0 || r.tokens[i-1].End <= offset {
		return nil
	}
	low := &r.tokens[i-1]
	high := Token{Start: offset, End: low.End, Owner: low.Owner, Version: first(epochOf(low.Version))}
	low.End = offset
	low.Version++
	r.tokens = slices.Insert(r.tokens, i, high)
	return []uint64{r.tokens[i-1].Start, offset}
}

// put inserts t or replaces the token with the same start, which it returns; the zero Token where there was none.
func (r *Ring) put(t Token) (old Token) {
	i, found := r.find(t.Start)
	if found {
		old, r.tokens[i] = r.tokens[i], t
		return old
	}
	r.tokens = slices.Insert(r.tokens, i, t)
	return Token{}
}

// pick returns a ring with only the tokens at starts.
func (r *Ring) pick(starts []uint64) *Ring {
	delta := &Ring{prefix: r.prefix, clusterID: r.clusterID}
	slices.Sort(starts)
	for _, start := range slices.Compact(starts) {
		if i, found := r.find(start); found {
			delta.tokens = append(delta.tokens, r.tokens[i])
		}
	}
	return delta
}

// normal returns ids sorted, without duplicates and without the zero ID.
func normal(ids []peer.ID) []peer.ID {
	ids = slices.Clone(ids)
	slices.SortFunc(ids, peer.ID.Compare)
	ids = slices.Compact(ids)
	return slices.DeleteFunc(ids, peer.ID.IsZero)
}
