// Package ring divides one address range among the nodes of a network without a central store.
//
// A ring is a replicated set of tokens. A token {start, end, owner, version, free} records which node owns the
// addresses [start, end), and only its owner ever writes its next version. That rule makes the ring safe under loss,
// duplication, reordering and partition:
//
//   - The versions of the token at one start form a single chain, because each is written by the owner that the version
//     before names. So only the owner holds the newest version, and a node that gave a token away, which it recorded
//     itself, can never believe that it still owns it.
//   - Tokens are only cut or handed over. They are never joined, and never removed, except where their whole span was
//     taken from a dead owner (Reclaim): at their newest versions they are disjoint and cover the range. A start that
//     is not in the owner's view has never been used in its epoch, so a new token begins at the first version of the
//     epoch and no tombstone is needed.
//   - A token carries its own end. A node that learns of its token and of no other knows exactly what it owns, so every
//     token may travel alone. A stale token that reaches over the start of a newer one is read as ending there. Where a
//     view has gaps, the owner of the addresses in them is unknown. Both are harmless, because only owners allocate.
//
// Addresses are offsets from the first address of the range. The package is pure: no goroutine, no I/O, no clock. A
// Ring is not safe for concurrent use.
package ring

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/peer"
)

// MaxTokens bounds how many tokens a ring holds. Grants that would need more are refused, as are encodings that carry
// more.
const MaxTokens = 1 << 16

// Errors that callers branch on.
var (
	// ErrRange is wrapped by Merge when the other ring covers another range.
	ErrRange = errors.New("ring: another range")
	// ErrNotOwner is wrapped by Grant when the granting node does not own the whole span.
	ErrNotOwner = errors.New("ring: not the owner")
	// ErrFull is wrapped when a change would take the ring beyond MaxTokens.
	ErrFull = errors.New("ring: too many tokens")
	// ErrFinal is wrapped by Grant for a token with the highest version. Only a hostile node can have written it.
	ErrFinal = errors.New("ring: no higher version")
)

// ClusterID identifies how a range was bootstrapped: a hash of the range and its bootstrap nodes. Rings with different
// cluster IDs are never merged. The zero ClusterID is that of a ring that is not bootstrapped yet.
type ClusterID [8]byte

// String returns the ID as 16 hexadecimal digits.
func (id ClusterID) String() string { return hex.EncodeToString(id[:]) }

// IsZero reports whether the ring is not bootstrapped yet.
func (id ClusterID) IsZero() bool { return id == ClusterID{} }

// Span is the offsets from Start up to, not including, End.
type Span struct{ Start, End uint64 }

// Len returns the number of offsets in s; 0 for an inverted span.
func (s Span) Len() uint64 {
	if s.End <= s.Start {
		return 0
	}
	return s.End - s.Start
}

// Contains reports whether offset is in s.
func (s Span) Contains(offset uint64) bool { return s.Start <= offset && offset < s.End }

// Intersect returns the offsets that s and other share; its Len is 0 where they share none.
func (s Span) Intersect(other Span) Span {
	return Span{Start: max(s.Start, other.Start), End: min(s.End, other.End)}
}

// Token records that Owner owns the offsets [Start, End). See docs/adr/0005-tokens-carry-their-end.md.
type Token struct {
	Start, End uint64
	Owner      peer.ID
	Version    uint64 // 1 for a new token; each change by the owner adds 1
	Free       uint64 // addresses that may be allocated and are not leased, as the owner last reported
}

// Span returns the offsets that t covers.
func (t Token) Span() Span { return Span{t.Start, t.End} }

// Ring is one node's view of which node owns which part of a range. Create one with New.
type Ring struct {
	prefix    netip.Prefix
	clusterID ClusterID
	tokens    []Token // sorted by Start, which is unique
}

// New returns a ring for prefix, which is masked, that is not bootstrapped. It returns an error for an invalid prefix.
func New(prefix netip.Prefix) (*Ring, error) {
	if !prefix.IsValid() || prefix.Addr().Is4In6() {
		return nil, fmt.Errorf("ring: %q is not an address range", prefix)
	}
	return &Ring{prefix: prefix.Masked()}, nil
}

// Range returns the range that r divides.
func (r *Ring) Range() netip.Prefix { return r.prefix }

// ClusterID returns the cluster ID of r; zero while r is not bootstrapped.
func (r *Ring) ClusterID() ClusterID { return r.clusterID }

// Bootstrapped reports whether the range has been divided, as far as r knows.
func (r *Ring) Bootstrapped() bool { return !r.clusterID.IsZero() }

// Tokens returns a copy of the tokens that r knows, sorted by start.
func (r *Ring) Tokens() []Token { return slices.Clone(r.tokens) }

// Len returns the number of tokens that r knows.
func (r *Ring) Len() int { return len(r.tokens) }

// Select returns a ring with those tokens of r for which keep returns true. It may be encoded and merged like any other
// ring.
func (r *Ring) Select(keep func(Token) bool) *Ring {
	part := &Ring{prefix: r.prefix, clusterID: r.clusterID}
	for _, t := range r.tokens {
		if keep(t) {
			part.tokens = append(part.tokens, t)
		}
	}
	return part
}

// Clone returns an independent copy of r.
func (r *Ring) Clone() *Ring {
	return &Ring{prefix: r.prefix, clusterID: r.clusterID, tokens: slices.Clone(r.tokens)}
}

// Equal reports whether r and other have the same range, cluster ID and tokens.
func (r *Ring) Equal(other *Ring) bool {
	return r.prefix == other.prefix && r.clusterID == other.clusterID && slices.Equal(r.tokens, other.tokens)
}

// Owner returns the owner of offset in r's view; false where r does not know it.
func (r *Ring) Owner(offset uint64) (peer.ID, bool) {
	t, ok := r.TokenAt(offset)
	return t.Owner, ok
}

// TokenAt returns the token that covers offset; false where r knows none.
func (r *Ring) TokenAt(offset uint64) (Token, bool) {
	i, found := r.find(offset)
	if !found {
		i--
	}
	if i < 0 || r.tokens[i].Tombstone() || !r.effective(i).Contains(offset) {
		return Token{}, false
	}
	return r.tokens[i], true
}

// Owned returns the spans that id owns in r's view, sorted, with adjacent spans joined. It is exact for the node that r
// belongs to, and may be stale for others.
func (r *Ring) Owned(id peer.ID) []Span {
	var spans []Span
	for i, t := range r.tokens {
		if t.Owner != id || t.Tombstone() {
			continue
		}
		s := r.effective(i)
		if n := len(spans); n > 0 && spans[n-1].End == s.Start {
			spans[n-1].End = s.End
		} else {
			spans = append(spans, s)
		}
	}
	return spans
}

// Total is the sum of the tokens of one owner.
type Total struct {
	Owner     peer.ID
	Addresses uint64 // all that it owns, including addresses that are never allocated
	Free      uint64 // how many of those that may be allocated are not leased, as last reported
}

// Totals returns one row per owner, sorted by ID.
func (r *Ring) Totals() []Total { return r.TotalsWithin(Span{0, r.Size()}) }

// TotalsWithin is Totals of the offsets within s. The free addresses of a token that reaches out of s are counted up to
// the number that may be allocated within s, so Free is an upper bound.
func (r *Ring) TotalsWithin(s Span) []Total {
	sums := make(map[peer.ID]Total)
	for i, t := range r.tokens {
		part := r.effective(i).Intersect(s)
		if part.Len() == 0 || t.Tombstone() {
			continue
		}
		sum := sums[t.Owner]
		sum.Owner = t.Owner
		sum.Addresses += part.Len()
		sum.Free += min(t.Free, r.capacity(part))
		sums[t.Owner] = sum
	}
	totals := make([]Total, 0, len(sums))
	for _, sum := range sums {
		totals = append(totals, sum)
	}
	slices.SortFunc(totals, func(a, b Total) int { return a.Owner.Compare(b.Owner) })
	return totals
}

// Check returns an error that names the first broken invariant: tokens are sorted, unique, owned and in range; Free is
// not above the number of addresses that may be allocated; there are no tokens before the bootstrap.
func (r *Ring) Check() error {
	if !r.Bootstrapped() && len(r.tokens) > 0 {
		return errors.New("ring: tokens before the bootstrap")
	}
	if len(r.tokens) > MaxTokens {
		return fmt.Errorf("%w: %d", ErrFull, len(r.tokens))
	}
	for i, t := range r.tokens {
		if i > 0 && t.Start <= r.tokens[i-1].Start {
			return fmt.Errorf("ring: token %d follows token %d", t.Start, r.tokens[i-1].Start)
		}
		if err := r.checkToken(t); err != nil {
			return err
		}
	}
	return nil
}

func (r *Ring) checkToken(t Token) error {
	switch {
	case t.Start >= t.End || t.End > r.Size():
		return fmt.Errorf("ring: token [%d, %d) is not within [0, %d)", t.Start, t.End, r.Size())
	case t.Owner.IsZero():
		return fmt.Errorf("ring: token %d has no owner", t.Start)
	case !valid(t.Version):
		return fmt.Errorf("ring: token %d has version %d", t.Start, t.Version)
	case t.Free > r.capacity(t.Span()):
		return fmt.Errorf("ring: token %d has %d free of %d", t.Start, t.Free, r.capacity(t.Span()))
	}
	return nil
}

// find returns the index of the token that starts at offset, or the index where it would be inserted.
func (r *Ring) find(offset uint64) (int, bool) {
	return slices.BinarySearchFunc(r.tokens, offset, func(t Token, o uint64) int {
		switch {
		case t.Start < o:
			return -1
		case t.Start > o:
			return +1
		}
		return 0
	})
}

// effective returns the span of token i as it is read: up to its end or the next token, whichever comes first.
func (r *Ring) effective(i int) Span {
	s := r.tokens[i].Span()
	if i+1 < len(r.tokens) {
		s.End = min(s.End, r.tokens[i+1].Start)
	}
	return s
}
