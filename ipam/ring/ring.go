// Package ring divides one address range among the nodes of a network without a central store.
//
// A ring is a replicated set of tokens. A token {start, end, owner, version, free} says who owns the addresses
// [start, end), and only its owner ever writes its next version. That one rule makes the ring safe under loss,
// duplication, reordering and partition:
//
//   - The versions of the token at one start form a single chain, because each is written by the owner that the one
//     before names. So of all nodes only the owner holds the newest version, and nobody who gave a token away, which he
//     wrote himself, can believe that it is still his.
//   - Tokens are only ever cut or handed on, never joined, and never removed but where all of their span was taken from an
//     owner that was gone (Reclaim): at their newest versions they are disjoint and cover the range. A start that is not in
//     the owner's view has never been used in its reign, so a new token begins at the reign's first version and no tombstone
//     is needed.
//   - A token carries its own end. A node that learns of its token and of no other knows exactly what it owns, so every
//     token may travel alone. A stale token whose end reaches over a newer one is cut at that one's start for reading;
//     where a view has gaps, nobody is known to own what is in them. Either is harmless, as only owners allocate.
//
// Addresses are offsets from the first address of the range. The package is pure: no goroutine, no I/O, no clock. A Ring
// is not safe for concurrent use.
package ring

import (
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/peer"
)

// MaxTokens bounds how many tokens a ring holds. Grants that would need more are refused, as are encodings that carry more.
const MaxTokens = 1 << 16

// MaxVersion bounds a token's version in what is read from others, so that no peer can push a counter to its end.
const MaxVersion = 1 << 62

// Errors that callers branch on.
var (
	// ErrRange is wrapped by Merge when the other ring covers another range.
	ErrRange = errors.New("ring: another range")
	// ErrNotOwner is wrapped by Grant when the author does not own all that it wants to give.
	ErrNotOwner = errors.New("ring: not the owner")
	// ErrFull is wrapped when a change would take the ring beyond MaxTokens.
	ErrFull = errors.New("ring: too many tokens")
)

// Founding tells rings apart that were founded apart: a hash of the range and its founders. The zero Founding is that of a
// ring that is not founded yet.
type ClusterID [8]byte

// String returns f as 16 hexadecimal digits.
func (f ClusterID) String() string { return hex.EncodeToString(f[:]) }

// IsZero reports whether f is that of a ring not founded yet.
func (f ClusterID) IsZero() bool { return f == ClusterID{} }

// Span is the offsets from Start up to but not including End.
type Span struct{ Start, End uint64 }

// Len is the number of offsets in s; an inverted span holds none.
func (s Span) Len() uint64 {
	if s.End <= s.Start {
		return 0
	}
	return s.End - s.Start
}

// Contains reports whether offset is in s.
func (s Span) Contains(offset uint64) bool { return s.Start <= offset && offset < s.End }

// Intersect returns what s and other share; its Len is 0 where they share nothing.
func (s Span) Intersect(other Span) Span {
	return Span{Start: max(s.Start, other.Start), End: min(s.End, other.End)}
}

// Token says that Owner owns the offsets [Start, End).
type Token struct {
	Start, End uint64
	Owner      peer.ID
	Version    uint64 // 1 for a new token; each change by the owner adds 1
	Free       uint64 // addresses that may be given out and are not leased, as the owner last reported
}

// Span is the range that t names.
func (t Token) Span() Span { return Span{t.Start, t.End} }

// Ring is one node's view of who owns what of a range. Make one with New.
type Ring struct {
	prefix   netip.Prefix
	founding ClusterID
	tokens   []Token // sorted by Start, which is unique
}

// New returns an unfounded ring for prefix, which is masked. It returns an error for an invalid prefix.
func New(prefix netip.Prefix) (*Ring, error) {
	if !prefix.IsValid() || prefix.Addr().Is4In6() {
		return nil, fmt.Errorf("ring: %q is not an address range", prefix)
	}
	return &Ring{prefix: prefix.Masked()}, nil
}

// Range is the range that r divides.
func (r *Ring) Range() netip.Prefix { return r.prefix }

// Founding identifies the founding of r; zero while r is not founded.
func (r *Ring) ClusterID() ClusterID { return r.founding }

// Founded reports whether the range has been divided, as far as r knows.
func (r *Ring) Bootstrapped() bool { return !r.founding.IsZero() }

// Tokens returns a copy of what r knows, sorted by start.
func (r *Ring) Tokens() []Token { return slices.Clone(r.tokens) }

// Len is the number of tokens that r knows.
func (r *Ring) Len() int { return len(r.tokens) }

// Select returns what r knows of the tokens that keep picks: a part that may be encoded and merged as any other ring.
func (r *Ring) Select(keep func(Token) bool) *Ring {
	part := &Ring{prefix: r.prefix, founding: r.founding}
	for _, t := range r.tokens {
		if keep(t) {
			part.tokens = append(part.tokens, t)
		}
	}
	return part
}

// Clone returns an independent copy of r.
func (r *Ring) Clone() *Ring {
	return &Ring{prefix: r.prefix, founding: r.founding, tokens: slices.Clone(r.tokens)}
}

// Equal reports whether r and other hold the same range, founding and tokens.
func (r *Ring) Equal(other *Ring) bool {
	return r.prefix == other.prefix && r.founding == other.founding && slices.Equal(r.tokens, other.tokens)
}

// Owner returns who owns offset in r's view; false where r does not know.
func (r *Ring) Owner(offset uint64) (peer.ID, bool) {
	t, ok := r.TokenAt(offset)
	return t.Owner, ok
}

// TokenAt returns the token whose range holds offset; false where r knows none.
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

// Owned returns the spans that id owns in r's view, sorted, adjacent ones joined. For the node that r belongs to this is
// exact; for others it may be stale.
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

// Total is what one owner holds.
type Total struct {
	Owner     peer.ID
	Addresses uint64 // all it owns, with the addresses that are never given out
	Free      uint64 // of those that may be given out, how many are not leased, as last reported
}

// Totals returns a row an owner, sorted by ID.
func (r *Ring) Totals() []Total { return r.TotalsWithin(Span{0, r.Size()}) }

// TotalsWithin is Totals of what lies within s. A token that reaches out of s counts its free addresses up to what s may
// hold of them: an upper bound.
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

// Check returns an error that names the first invariant r breaks: tokens sorted, unique, owned by somebody and in range;
// Free never above what the token may give out; no token before the founding.
func (r *Ring) Check() error {
	if !r.Bootstrapped() && len(r.tokens) > 0 {
		return errors.New("ring: tokens before the founding")
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
	case t.Version == 0:
		return fmt.Errorf("ring: token %d has version %d", t.Start, t.Version)
	case t.Free > r.capacity(t.Span()):
		return fmt.Errorf("ring: token %d has %d free of %d", t.Start, t.Free, r.capacity(t.Span()))
	}
	return nil
}

// find returns where the token that starts at offset is, or would go.
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

// effective is the range of token i as read: up to its end or the next token, whichever comes first.
func (r *Ring) effective(i int) Span {
	s := r.tokens[i].Span()
	if i+1 < len(r.tokens) {
		s.End = min(s.End, r.tokens[i+1].Start)
	}
	return s
}
