// Package space finds free addresses in the ranges that a node owns.
//
// A Space is kept as sorted intervals, not as bits: its size depends on how scattered the free addresses are, not on
// their number, so a range of 2^40 addresses costs no more than one of 2^8. Addresses are offsets from the first
// address of their range. The package is pure; a Space is not safe for concurrent use.
package space

import (
	"errors"
	"fmt"
	"slices"
)

// Errors that callers branch on.
var (
	// ErrNotOwned is wrapped by Claim and Free for an offset outside of the space.
	ErrNotOwned = errors.New("space: not owned")
	// ErrTaken is wrapped by Claim for an offset that is taken already.
	ErrTaken = errors.New("space: taken")
	// ErrNotTaken is wrapped by Free for an offset that is free already.
	ErrNotTaken = errors.New("space: not taken")
)

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

func (s Span) intersect(other Span) Span {
	return Span{max(s.Start, other.Start), min(s.End, other.End)}
}

// Space is the offsets that a node owns, each of them free or taken. The zero Space is empty and ready for use.
type Space struct {
	owned []Span // sorted, disjoint, not adjacent
	free  []Span // likewise, within owned
}

// SetOwned makes the space own exactly spans, in any order and possibly overlapping. Newly owned offsets are free;
// offsets that stay owned stay free or taken; offsets that are no longer owned are removed, free or taken.
func (s *Space) SetOwned(spans []Span) {
	owned := normal(spans)
	added := subtract(owned, s.owned)
	kept := intersect(s.free, owned)
	s.owned = owned
	s.free = normal(append(kept, added...))
}

// Owned returns the spans of the space: sorted, disjoint, adjacent spans joined. The slice must not be changed.
func (s *Space) Owned() []Span { return s.owned }

// Owns reports whether offset is in the space.
func (s *Space) Owns(offset uint64) bool { return contains(s.owned, offset) }

// Free reports whether offset is in the space and free.
func (s *Space) Free(offset uint64) bool { return contains(s.free, offset) }

// Allocate takes the lowest free offset within and returns it; false where none is free.
func (s *Space) Allocate(within Span) (offset uint64, ok bool) {
	i := after(s.free, within.Start)
	if i == len(s.free) {
		return 0, false
	}
	part := s.free[i].intersect(within)
	if part.Len() == 0 {
		return 0, false
	}
	s.take(i, part.Start)
	return part.Start, true
}

// AllocateOutside takes the lowest free offset within that is in none of parts, which are sorted by their starts, and returns it; false
// where none is free.
func (s *Space) AllocateOutside(parts []Span, within Span) (offset uint64, ok bool) {
	for _, p := range parts {
		if p.End <= within.Start {
			continue
		}
		if offset, ok = s.Allocate(Span{within.Start, min(p.Start, within.End)}); ok {
			return offset, true
		}
		within.Start = p.End
	}
	return s.Allocate(within)
}

// Claim takes offset. It returns ErrNotOwned or ErrTaken, wrapped.
func (s *Space) Claim(offset uint64) error {
	i := after(s.free, offset)
	if i < len(s.free) && s.free[i].Contains(offset) {
		s.take(i, offset)
		return nil
	}
	if !s.Owns(offset) {
		return fmt.Errorf("%w: %d", ErrNotOwned, offset)
	}
	return fmt.Errorf("%w: %d", ErrTaken, offset)
}

// Release makes offset free again. It returns ErrNotOwned or ErrNotTaken, wrapped.
func (s *Space) Release(offset uint64) error {
	if !s.Owns(offset) {
		return fmt.Errorf("%w: %d", ErrNotOwned, offset)
	}
	i := after(s.free, offset)
	if i < len(s.free) && s.free[i].Contains(offset) {
		return fmt.Errorf("%w: %d", ErrNotTaken, offset)
	}
	joinsLow := i > 0 && s.free[i-1].End == offset
	joinsHigh := i < len(s.free) && s.free[i].Start == offset+1
	switch {
	case joinsLow && joinsHigh:
		s.free[i-1].End = s.free[i].End
		s.free = slices.Delete(s.free, i, i+1)
	case joinsLow:
		s.free[i-1].End++
	case joinsHigh:
		s.free[i].Start--
	default:
		s.free = slices.Insert(s.free, i, Span{offset, offset + 1})
	}
	return nil
}

// Len returns the number of owned offsets.
func (s *Space) Len() uint64 { return length(s.owned, everything) }

// FreeIn returns the number of free offsets within.
func (s *Space) FreeIn(within Span) uint64 { return length(s.free, within) }

// OwnedIn returns the number of owned offsets within.
func (s *Space) OwnedIn(within Span) uint64 { return length(s.owned, within) }

// LargestFree returns the longest run of free offsets within, the lowest of several; empty where none is free.
func (s *Space) LargestFree(within Span) Span {
	var largest Span
	for i := after(s.free, within.Start); i < len(s.free) && s.free[i].Start < within.End; i++ {
		if part := s.free[i].intersect(within); part.Len() > largest.Len() {
			largest = part
		}
	}
	return largest
}

// Donation returns the span to grant to a node that requests space within: the upper half of the largest free run, cut
// at a boundary that suits CIDR blocks if there is one near. A single free offset is granted whole, because the
// requester needs it now. The space is not changed; ok is false where no offset is free.
func (s *Space) Donation(within Span) (grant Span, ok bool) {
	run := s.LargestFree(within)
	switch n := run.Len(); n {
	case 0:
		return Span{}, false
	case 1:
		return run, true
	default:
		return Span{cutNear(run.Start+(n+1)/2, n/8, run), run.End}, true
	}
}

// cutNear returns the offset at most slack away from mid, and inside of run, that is divisible by the highest power of
// two.
func cutNear(mid, slack uint64, run Span) uint64 {
	low, high := max(mid-slack, run.Start+1), min(mid+slack, run.End-1)
	best := mid
	for step := uint64(1); ; step <<= 1 {
		up := (mid + step - 1) / step * step
		down := mid / step * step
		switch {
		case up <= high && (down < low || up-mid <= mid-down):
			best = up
		case down >= low && down > 0:
			best = down
		default:
			return best
		}
	}
}

// take marks offset, which is in free[i], as taken.
func (s *Space) take(i int, offset uint64) {
	run := s.free[i]
	switch {
	case run.Len() == 1:
		s.free = slices.Delete(s.free, i, i+1)
	case run.Start == offset:
		s.free[i].Start++
	case run.End == offset+1:
		s.free[i].End--
	default:
		s.free[i].End = offset
		s.free = slices.Insert(s.free, i+1, Span{offset + 1, run.End})
	}
}
