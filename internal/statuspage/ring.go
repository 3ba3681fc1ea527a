package statuspage

import (
	"fmt"
	"math"

	"weft/internal/api"
	"weft/internal/peer"
)

// Sizes of the picture of a range, in units of its viewBox.
const (
	ringSize   = 176
	ringOuter  = 86
	ringInner  = 60
	ringColors = 12 // of the owners; further owners use the same colors again
	ringOwners = 12 // further rows of the table are folded away
	maxOwners  = 100
	ringArcs   = 256 // with more parts, neighbors are drawn as one
)

// rangeView is an address range: a ring of its parts in the colors of their owners, and a table of the owners.
type rangeView struct {
	CIDR        string
	Size        int
	Arcs        []arc
	Owners      []ownerRow // at most ringOwners
	More        []ownerRow // at most maxOwners
	Others      int        // number of owners that are in neither
	Used, Total string     // numbers of addresses
	Words       string     // a description for screen readers
	Scattered   bool       // some owners have several parts
}

// arc is a part of the ring.
type arc struct {
	Path  string // "d" of an SVG path
	Color int
	Title string
}

// ownerRow is a row of the table of owners.
type ownerRow struct {
	api.IPAMOwner
	Color             int
	Share             string
	UsedText, AllText string // numbers of addresses
	Bar               float64
	Parts             int
}

func newRangeView(r Range) rangeView {
	v := rangeView{CIDR: r.CIDR.String(), Size: ringSize}
	colors, names, parts := map[peer.ID]int{}, map[peer.ID]string{}, map[peer.ID]int{}
	for _, p := range r.Parts {
		parts[p.Owner]++
		v.Scattered = v.Scattered || parts[p.Owner] > 1
	}
	var all, used uint64
	for _, o := range r.Owners {
		all += o.Addresses
		used += inUse(o)
	}
	v.Used, v.Total = countText(used), countText(all)
	for i, o := range r.Owners {
		colors[o.ID], names[o.ID] = i%ringColors, o.Name
		if i >= ringOwners+maxOwners {
			v.Others++
			continue
		}
		row := ownerRow{
			IPAMOwner: o, Color: i % ringColors, Share: shareText(o.Addresses, all), UsedText: countText(inUse(o)),
			AllText: countText(o.Addresses), Bar: round(100 * float64(inUse(o)) / float64(max(o.Addresses, 1))), Parts: parts[o.ID],
		}
		if i < ringOwners {
			v.Owners = append(v.Owners, row)
		} else {
			v.More = append(v.More, row)
		}
		if i > 0 {
			v.Words += "; "
		}
		v.Words += fmt.Sprintf("%s owns %s, with %s of %s addresses in use", o.Name, row.Share, row.UsedText, row.AllText)
	}
	if len(r.Owners) == 0 {
		v.Words = "not divided yet"
	}
	if v.Others > 0 {
		v.Words += fmt.Sprintf("; %s more", plural(v.Others, "owner"))
	}
	for _, d := range drawnParts(r.Parts) {
		of := names[d.Owner]
		if d.parts > 1 {
			of = plural(d.parts, "part")
		}
		v.Arcs = append(v.Arcs, arc{
			Path: arcPath(d.Start, d.Length, ringInner, ringOuter), Color: colors[d.Owner],
			Title: fmt.Sprintf("%s: %.2f %% of the range, %.0f %% of it in use", of, 100*d.Length, 100*d.Used),
		})
	}
	return v
}

// drawnPart is a number of neighboring parts that are drawn as one, in the color of the longest of them.
type drawnPart struct {
	Part
	parts   int
	longest float64
}

// drawnParts returns the parts to draw. Of more than ringArcs, so many neighbors are drawn as one that each can be seen.
func drawnParts(parts []Part) (list []drawnPart) {
	for _, p := range parts {
		last := len(list) - 1
		if len(parts) <= ringArcs || last < 0 || list[last].Length >= 1.0/ringArcs {
			list = append(list, drawnPart{p, 1, p.Length})
			continue
		}
		d := &list[last]
		d.Used = (d.Used*d.Length + p.Used*p.Length) / (d.Length + p.Length)
		d.Length += p.Length
		d.parts++
		if p.Length > d.longest {
			d.Owner, d.longest = p.Owner, p.Length
		}
	}
	return list
}

// inUse returns how many addresses of an owner are in use.
func inUse(o api.IPAMOwner) uint64 { return o.Addresses - min(o.Free, o.Addresses) }

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
