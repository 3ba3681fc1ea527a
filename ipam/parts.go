package ipam

import (
	"net/netip"

	"weft/internal/peer"
	"weft/ipam/ring"
)

// Part is a piece of a range that one node owns, for a picture. Start and Length are shares of the range, from 0 to 1.
type Part struct {
	Owner         peer.ID
	Start, Length float64
	Used          float64 // the share of the part that is leased, as its owner last said
}

// Parts returns how the range cidr is divided, in order, adjacent pieces of one owner joined. Where there are more than most, the range is looked
// at in so many places only.
func (a *Allocator) Parts(cidr netip.Prefix, most int) (parts []Part) {
	a.view(func() {
		for _, p := range a.pools {
			if p.prefix == cidr && p.ring.Founded() {
				parts = a.parts(p, most)
			}
		}
	})
	return parts
}

// parts is Parts of one range; the caller holds mu.
func (a *Allocator) parts(p *pool, most int) []Part {
	size := float64(p.ring.Size())
	if p.ring.Len() > most {
		step := max(p.ring.Size()/uint64(most), 1)
		parts := []Part{}
		for i := range uint64(most) {
			if owner, ok := p.ring.Owner(i * step); ok {
				parts = joined(parts, Part{Owner: owner, Start: float64(i*step) / size, Length: float64(step) / size})
			}
		}
		return parts
	}
	parts := []Part{}
	tokens := p.ring.Tokens()
	for i, t := range tokens {
		if i+1 < len(tokens) {
			t.End = min(t.End, tokens[i+1].Start) // as the ring is read
		}
		if t.Hollow() || t.End <= t.Start {
			continue
		}
		length := float64(t.End - t.Start)
		free := float64(t.Free)
		if t.Owner == a.cfg.Self {
			free = float64(p.free(ring.Span{Start: t.Start, End: t.End}))
		}
		parts = joined(parts, Part{
			Owner: t.Owner, Start: float64(t.Start) / size, Length: length / size, Used: max(length-free, 0) / length,
		})
	}
	return parts
}

// joined appends a part, as one with the last where that is the same owner's and ends where it starts.
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
