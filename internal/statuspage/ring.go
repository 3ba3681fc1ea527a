package statuspage

import (
	"fmt"
	"math"

	"weft/internal/api"
	"weft/internal/peer"
)

// Sizes of the picture of a range, in units of its viewBox.
const (
	ringSize   = 240
	ringOuter  = 110
	ringInner  = 66
	ringColors = 12 // of the owners; further owners use the same colors again
)

// rangeView is an address range: a ring, and a table of its owners.
type rangeView struct {
	CIDR   string
	Size   int
	Arcs   []arc
	Owners []ownerRow
	Words  string // a description for screen readers
}

// arc is a part of the ring: the whole of it, and from the inside the share that is in use.
type arc struct {
	Path, Full string // "d" of an SVG path
	Color      int
	Title      string
}

// ownerRow is a row of the table of owners.
type ownerRow struct {
	api.IPAMOwner
	Color       int
	Share, Used string
}

func newRangeView(r Range) rangeView {
	v := rangeView{CIDR: r.CIDR.String(), Size: ringSize}
	colors, names := map[peer.ID]int{}, map[peer.ID]string{}
	var all uint64
	for _, o := range r.Owners {
		all += o.Addresses
	}
	for i, o := range r.Owners {
		colors[o.ID], names[o.ID] = i%ringColors, o.Name
		row := ownerRow{
			IPAMOwner: o, Color: i % ringColors,
			Share: shareText(o.Addresses, all), Used: shareText(o.Addresses-min(o.Free, o.Addresses), o.Addresses),
		}
		v.Owners = append(v.Owners, row)
		if i > 0 {
			v.Words += "; "
		}
		v.Words += fmt.Sprintf("%s owns %s, of which %s is in use", o.Name, row.Share, row.Used)
	}
	if len(r.Owners) == 0 {
		v.Words = "not divided yet"
	}
	for _, p := range r.Parts {
		full := ringInner + (ringOuter-ringInner)*min(max(p.Used, 0), 1)
		v.Arcs = append(v.Arcs, arc{
			Path: arcPath(p.Start, p.Length, ringInner, ringOuter), Full: arcPath(p.Start, p.Length, ringInner, full), Color: colors[p.Owner],
			Title: fmt.Sprintf("%s: %.2f %% of the range, %.0f %% of it in use", names[p.Owner], 100*p.Length, 100*p.Used),
		})
	}
	return v
}

// arcPath returns the path around a part of a ring between two radii. start and length are shares of the circle, clockwise
// from the top.
func arcPath(start, length, inner, outer float64) string {
	if length >= 1-1e-9 { // an SVG arc cannot end where it begins, so this is two halves
		return arcPath(0, 0.5, inner, outer) + arcPath(0.5, 0.5, inner, outer)
	}
	x1, y1 := onCircle(start, outer)
	x2, y2 := onCircle(start+length, outer)
	x3, y3 := onCircle(start+length, inner)
	x4, y4 := onCircle(start, inner)
	large := 0
	if length > 0.5 {
		large = 1
	}
	return fmt.Sprintf("M%.2f %.2fA%.2f %.2f 0 %d 1 %.2f %.2fL%.2f %.2fA%.2f %.2f 0 %d 0 %.2f %.2fZ",
		x1, y1, outer, outer, large, x2, y2, x3, y3, inner, inner, large, x4, y4)
}

// onCircle returns the point at a share of the circle, clockwise from the top.
func onCircle(share, radius float64) (x, y float64) {
	angle := 2*math.Pi*share - math.Pi/2
	return ringSize/2 + radius*math.Cos(angle), ringSize/2 + radius*math.Sin(angle)
}
