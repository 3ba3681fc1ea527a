package space

import (
	"cmp"
	"math"
	"slices"
)

// everything is the span of all offsets.
var everything = Span{0, math.MaxUint64}

// after returns the index of the first span that ends after offset.
func after(spans []Span, offset uint64) int {
	i, _ := slices.BinarySearchFunc(spans, offset, func(s Span, o uint64) int {
		if s.End <= o {
			return -1
		}
		return +1
	})
	return i
}

func contains(spans []Span, offset uint64) bool {
	i := after(spans, offset)
	return i < len(spans) && spans[i].Contains(offset)
}

// length returns how many offsets spans hold within.
func length(spans []Span, within Span) (n uint64) {
	for i := after(spans, within.Start); i < len(spans) && spans[i].Start < within.End; i++ {
		n += spans[i].intersect(within).Len()
	}
	return n
}

// normal returns spans sorted, with touching spans joined and empty spans removed.
func normal(spans []Span) []Span {
	spans = slices.DeleteFunc(slices.Clone(spans), func(s Span) bool { return s.Len() == 0 })
	slices.SortFunc(spans, func(a, b Span) int { return cmp.Compare(a.Start, b.Start) })
	joined := spans[:0]
	for _, s := range spans {
		if n := len(joined); n > 0 && s.Start <= joined[n-1].End {
			joined[n-1].End = max(joined[n-1].End, s.End)
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}

// intersect returns the offsets that are in a and in b, both normal.
func intersect(a, b []Span) []Span {
	var shared []Span
	for i, j := 0, 0; i < len(a) && j < len(b); {
		if part := a[i].intersect(b[j]); part.Len() > 0 {
			shared = append(shared, part)
		}
		if a[i].End < b[j].End {
			i++
		} else {
			j++
		}
	}
	return shared
}

// subtract returns the offsets that are in a and not in b; both are normal.
func subtract(a, b []Span) []Span {
	var rest []Span
	j := 0
	for _, s := range a {
		for ; j < len(b) && b[j].End <= s.Start; j++ {
		}
		at := s.Start
		for k := j; k < len(b) && b[k].Start < s.End; k++ {
			if b[k].Start > at {
				rest = append(rest, Span{at, b[k].Start})
			}
			at = max(at, b[k].End)
		}
		if at < s.End {
			rest = append(rest, Span{at, s.End})
		}
	}
	return rest
}
