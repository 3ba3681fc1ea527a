package ipam

import (
	"net/netip"

	"weft/internal/peer"
	"weft/ipam/ring"
)

// Part is a piece of a range that one node owns, for a diagram. Start and Length are fractions of the range, from 0 to
// 1.
type Part struct {
	Owner         peer.ID
	Start, Length float64
	Used          float64 // the fraction of the part that is leased, as its owner last reported
}

// Parts returns the parts of the range cidr in order, with adjacent parts of one owner joined; nil for an unknown or
// undivided range. A range of more than most tokens is sampled at most offsets instead.
func (a *Allocator) Parts(cidr netip.Prefix, most int) (parts []Part) {
	a.view(func() {
		for _, p := range a.pools {
			if p.prefix == cidr && p.ring.Bootstrapped() {
				parts = a.parts(p, most)
			}
		}
	})
	return parts
}

// parts is Parts of one range. The caller holds mu.
func (a *Allocator) parts(p *pool, most int) []Part {
	if p.ring.Len() > most {
		return a.samples(p, uint64(most))
	}
	size := float64(p.ring.Size())
	parts := []Part{}
	tokens := p.ring.Tokens()
	for i, t := range tokens {
		if i+1 < len(tokens) {
			t.End = min(t.End, tokens[i+1].Start) // where the ring reads it as ending
		}
		if t.Tombstone() || t.End <= t.Start {
			continue
		}
		parts = joined(parts, Part{
			Owner: t.Owner, Start: float64(t.Start) / size, Length: float64(t.End-t.Start) / size, Used: a.used(p, t),
		})
	}
	return parts
}

// samples returns the range in most equal parts, each with the owner of its first address. The caller holds mu. most is
// at most 2^24.
func (a *Allocator) samples(p *pool, most uint64) []Part {
	parts, size := []Part{}, p.ring.Size()
	for i := range most {
		start, end := i*size/most, (i+1)*size/most // Size is at most 2^40
		if t, ok := p.ring.TokenAt(start); ok && start < end {
			parts = joined(parts, Part{
				Owner: t.Owner, Start: float64(start) / float64(size), Length: float64(end-start) / float64(size), Used: a.used(p, t),
			})
		}
	}
	return parts
}

// used returns the fraction of a token that is leased. The caller holds mu.
func (a *Allocator) used(p *pool, t ring.Token) float64 {
	length, free := float64(t.End-t.Start), float64(t.Free)
	if t.Owner == a.cfg.Self {
		free = float64(p.free(ring.Span{Start: t.Start, End: t.End}))
	}
	return max(length-free, 0) / length
}

// joined appends next, or adds it to the last part where that has the same owner and ends where next starts.
func joined(parts []Part, next Part) []Part {
	if n := len(parts); n > 0 && parts[n-1].Owner == next.Owner && next.Start-(parts[n-1].Start+parts[n-1].Length) < 1e-9 {
		last := &parts[n-1]
		used := last.Used*last.Length + next.Used*next.Length
		last.Length += next.Length
		last.Used = used / last.Length
		return parts
	}
	return append(parts, next)
}
