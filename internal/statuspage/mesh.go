package statuspage

import (
	"fmt"
	"math"
	"strings"
	"unicode/utf8"

	"weft/internal/api"
	"weft/internal/peer"
)

// Sizes of the picture of the mesh, in units of its viewBox. The page shows a unit as about one pixel, on a screen of any size.
const (
	meshWidth   = 330
	meshMiddle  = meshWidth / 2
	meshNodes   = 24 // with more nodes, groups are drawn instead
	circleNodes = 8  // with more nodes, this node is in the middle, and labels have no figures
	circleX     = 108
	starRadius  = 82
	starRune    = 7.5 // room for a character of a label
	lineHeight  = 15
)

// Lengths of labels, in characters.
const (
	circleLabel = 14
	starLabel   = 9
)

// picture is the mesh as this node sees it. Nodes that have left are not in it. There are three forms: up to circleNodes
// nodes on a circle with the links of all of them, up to meshNodes around this node, and more as groups.
type picture struct {
	Width, Height float64
	Nodes         []dot
	Links         []line
	Legend        []legendKey // of the kinds of links that are drawn, unless the labels of groups explain them
	Words         string      // a description for screen readers
	Note          string      // what is not drawn
}

// dot is a node, or a group of nodes with their number in it.
type dot struct {
	X, Y, R float64
	Class   string // the state, and "self" for this node
	Number  string // of nodes in a group
	Title   string
	Labels  []label
}

// label is a line of text at a dot.
type label struct {
	X, Y   float64
	Anchor string // text-anchor
	Turn   string // "transform" of the text; empty: none
	Class  string // detail; empty: a name
	Text   string
}

// line is a link.
type line struct {
	X1, Y1, X2, Y2 float64
	Class          string // kernel, direct, relay or none; between other nodes: other or broken
	Title          string
}

// legendKey explains a class of links.
type legendKey struct{ Class, Text string }

// legend has all classes of links, in the order of the legend.
var legend = []legendKey{
	{"kernel", "direct, by the kernel"}, {"direct", "direct, in userspace"}, {"relay", "over a relay"}, {"none", "not reached"},
	{"other", "between other nodes"}, {"broken", "no direct link"},
}

// point is a position in a picture.
type point struct{ x, y float64 }

func newPicture(s Snapshot, rows []peerRow) picture {
	order := selfFirst(rows)
	if len(order) > meshNodes { // the groups are their own legend
		p := newGroupPicture(order)
		p.Words, p.Note = groupWords(p.Nodes), brokenNote(s.Broken)
		return p
	}
	draw := newCircle
	if len(order) > circleNodes {
		draw = newStar
	}
	p := draw(order, s.Broken)
	p.Legend = legendOf(p.Links)
	var words []string
	for _, row := range order {
		if !row.Self {
			words = append(words, describe(row))
		}
	}
	if p.Words = strings.Join(words, "; "); p.Words == "" {
		p.Words = "no other node"
	}
	return p
}

// selfFirst returns the rows with that of this node first.
func selfFirst(rows []peerRow) []peerRow {
	order := make([]peerRow, 0, len(rows))
	for _, self := range []bool{true, false} {
		for _, row := range rows {
			if row.Self == self {
				order = append(order, row)
			}
		}
	}
	return order
}

// legendOf returns the keys of the links that are drawn.
func legendOf(links []line) (keys []legendKey) {
	drawn := map[string]bool{}
	for _, l := range links {
		drawn[l.Class] = true
	}
	for _, k := range legend {
		if drawn[k.Class] {
			keys = append(keys, k)
		}
	}
	return keys
}

// newCircle draws few nodes on a circle, this one at the top, with the links of all.
func newCircle(order []peerRow, broken [][2]peer.ID) picture {
	radius := 74.0
	if len(order) > 4 {
		radius = 100
	}
	middle, lowest := 34+radius, 34.0
	at := map[peer.ID]point{}
	p := picture{Width: meshWidth}
	for i, row := range order {
		angle := 2*math.Pi*float64(i)/float64(len(order)) - math.Pi/2
		pos := point{round(meshMiddle + circleX*math.Cos(angle)), round(middle + radius*math.Sin(angle))}
		if len(order) <= 2 { // this node on the left, its peer on the right
			pos = point{round(meshMiddle - circleX*float64(len(order)-1)*math.Cos(math.Pi*float64(i))), 34}
		}
		at[row.ID], lowest = pos, max(lowest, pos.y)
		d := newDot(row, pos, 10)
		d.Labels = circleLabels(row, pos, len(order) > 2 && pos.y < middle-1)
		p.Nodes = append(p.Nodes, d)
	}
	p.Height = lowest + 26 + lineHeight + 6
	p.Links = append(others(order, broken, at, true), linksToAll(order, at)...)
	return p
}

// circleLabels returns the name and the round trip of a node, above or below its dot.
func circleLabels(row peerRow, at point, above bool) []label {
	name := label{X: at.x, Y: at.y + 26, Anchor: "middle", Text: shortened(row.Name, circleLabel)}
	detail := label{X: at.x, Y: name.Y + lineHeight, Anchor: "middle", Class: "detail", Text: figure(row)}
	if above {
		name.Y, detail.Y = at.y-16, at.y-16
		if detail.Text != "" {
			name.Y -= lineHeight
		}
	}
	if detail.Text == "" {
		return []label{name}
	}
	return []label{name, detail}
}

// figure returns what is shown below the name of a node; empty: nothing.
func figure(row peerRow) string {
	switch {
	case row.Self:
		return ""
	case row.State != api.PeerAlive:
		return string(row.State)
	case row.Link == api.LinkNone:
		return row.LinkText
	case row.Link == api.LinkRelay:
		return shortened(row.Carrier, circleLabel)
	case row.RTT == dash:
		return ""
	}
	return row.RTT
}

// newStar draws many nodes around this one, with its links and the broken ones between others.
func newStar(order []peerRow, broken [][2]peer.ID) picture {
	longest := 0
	for _, row := range order[1:] {
		longest = max(longest, utf8.RuneCountInString(shortened(row.Name, starLabel)))
	}
	p := picture{Width: meshWidth, Height: 2 * (starRadius + 18 + starRune*float64(longest))}
	at := map[peer.ID]point{}
	for i, row := range order {
		if i == 0 {
			at[row.ID] = point{meshMiddle, p.Height / 2}
			d := newDot(row, at[row.ID], 10)
			d.Labels = circleLabels(row, at[row.ID], false)
			p.Nodes = append(p.Nodes, d)
			continue
		}
		// Half a step aside, so that no label is straight above or below this node.
		turn := (float64(i-1) + 0.5) / float64(len(order)-1)
		angle := 2*math.Pi*turn - math.Pi/2
		at[row.ID] = point{round(meshMiddle + starRadius*math.Cos(angle)), round(p.Height/2 + starRadius*math.Sin(angle))}
		d := newDot(row, at[row.ID], 7)
		d.Labels = []label{starLabelAt(row, angle, p.Height/2)}
		p.Nodes = append(p.Nodes, d)
	}
	p.Links = append(others(order, broken, at, false), linksToAll(order, at)...)
	return p
}

// starLabelAt returns the name of a node along the ray at an angle, readable from left to right. middle is the y of this node.
func starLabelAt(row peerRow, angle, middle float64) label {
	x, y := meshMiddle+(starRadius+13)*math.Cos(angle), middle+(starRadius+13)*math.Sin(angle)
	l := label{X: round(x), Y: round(y), Anchor: "start", Text: shortened(row.Name, starLabel)}
	degrees := angle * 180 / math.Pi
	if math.Cos(angle) < 0 {
		l.Anchor = "end"
		degrees += 180
	}
	l.Turn = fmt.Sprintf("rotate(%.1f %.1f %.1f) translate(0 4)", degrees, l.X, l.Y)
	return l
}

func newDot(row peerRow, at point, radius float64) dot {
	d := dot{X: at.x, Y: at.y, R: radius, Class: string(row.State),
		Title: fmt.Sprintf("%s (%s) at %s, %s", row.Name, row.ID, row.Addr, row.State)}
	if row.Self {
		d.Class += " self"
	}
	return d
}

func round(v float64) float64 { return math.Round(v*10) / 10 }

// class returns the class of the link to a peer. A peer that is not alive is not reached.
func class(row peerRow) string {
	switch {
	case row.State != api.PeerAlive:
		return string(api.LinkNone)
	case row.Link == api.LinkDirect && row.Datapath == api.DatapathKernel:
		return string(api.DatapathKernel)
	}
	return string(row.Link)
}

// describe returns a sentence about how a peer is reached.
func describe(row peerRow) string {
	trip := ""
	if row.RTT != dash {
		trip = ", round trip " + row.RTT
	}
	switch {
	case row.State != api.PeerAlive:
		return fmt.Sprintf("%s is %s", row.Name, row.State)
	case row.Link == api.LinkNone:
		return row.Name + " is not reached"
	case row.Link == api.LinkRelay:
		return row.Name + " is reached over a relay, " + row.Carrier
	case row.Datapath == api.DatapathKernel:
		return row.Name + " is reached directly, " + row.Carrier + trip
	}
	return row.Name + " is reached directly" + trip
}

// linksToAll returns the lines from this node, which is the first, to all others. at has the positions of the nodes.
func linksToAll(order []peerRow, at map[peer.ID]point) (lines []line) {
	for _, row := range order {
		if row.Self {
			continue
		}
		from, to := at[order[0].ID], at[row.ID]
		if via, relayed := at[row.Via]; relayed && row.State == api.PeerAlive {
			lines = append(lines, between(from, via, string(api.LinkRelay), describe(row)))
			from = via
		}
		lines = append(lines, between(from, to, class(row), describe(row)))
	}
	return lines
}

// others returns the lines between other nodes that are alive: those of pairs in broken, and with all also those of the rest,
// which have a link.
func others(order []peerRow, broken [][2]peer.ID, at map[peer.ID]point, all bool) (lines []line) {
	bad := map[[2]peer.ID]bool{}
	for _, pair := range broken {
		bad[pair], bad[[2]peer.ID{pair[1], pair[0]}] = true, true
	}
	for i, a := range order {
		for _, b := range order[i+1:] {
			switch {
			case a.Self || b.Self || a.State != api.PeerAlive || b.State != api.PeerAlive:
			case bad[[2]peer.ID{a.ID, b.ID}]:
				lines = append(lines, between(at[a.ID], at[b.ID], "broken", fmt.Sprintf("%s and %s have no direct link", a.Name, b.Name)))
			case all:
				lines = append(lines, between(at[a.ID], at[b.ID], "other", fmt.Sprintf("%s and %s reach each other", a.Name, b.Name)))
			}
		}
	}
	return lines
}

func between(a, b point, class, title string) line {
	return line{X1: a.x, Y1: a.y, X2: b.x, Y2: b.y, Class: class, Title: title}
}
