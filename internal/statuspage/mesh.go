package statuspage

import (
	"fmt"
	"math"
	"strings"

	"weft/internal/api"
	"weft/internal/peer"
)

// Sizes of the picture of the mesh, in units of its viewBox.
const (
	meshWidth, meshHeight = 720, 460
	meshRadius            = 165
	meshNodes             = 40 // further nodes are counted below the picture
	meshDetails           = 12 // with more nodes, only their names are shown
	meshOthers            = 16 // with more nodes, links between other nodes are not drawn
	nameLength            = 16 // characters of a name
)

// picture is the mesh as this node sees it: itself at the top, the other nodes on a circle, lines for links.
type picture struct {
	Width, Height int
	Nodes         []dot
	Links         []line
	Words         string // a description for screen readers
	Left          int    // nodes that are not drawn
}

// dot is a node.
type dot struct {
	X, Y, LabelX, LabelY float64
	Anchor               string // text-anchor of the label
	Name, Class, Title   string
	RTT, Rate            string // shown with the name; empty with more than meshDetails nodes
}

// line is a link.
type line struct {
	X1, Y1, X2, Y2 float64
	Class          string // direct, kernel, relay or none; between other nodes: other or broken
	Title          string
}

func newPicture(s Snapshot, rows []peerRow) picture {
	p := picture{Width: meshWidth, Height: meshHeight}
	at := map[peer.ID][2]float64{}
	order := selfFirst(rows)
	shown := order[:min(len(order), meshNodes)]
	p.Left = len(order) - len(shown)
	for i, row := range shown {
		angle := 2*math.Pi*float64(i)/float64(len(shown)) - math.Pi/2
		d := newDot(row, angle, len(shown) <= meshDetails)
		at[row.ID] = [2]float64{d.X, d.Y}
		p.Nodes = append(p.Nodes, d)
	}
	if len(shown) <= meshOthers {
		p.Links = append(p.Links, others(shown, s.Broken, at)...)
	}
	var words []string
	for _, row := range shown {
		if row.Self {
			continue
		}
		words = append(words, describe(row))
		p.Links = append(p.Links, linksTo(row, s.Status.ID, at)...)
	}
	p.Words = strings.Join(words, "; ")
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

func newDot(row peerRow, angle float64, detailed bool) dot {
	x, y := math.Cos(angle), math.Sin(angle)
	d := dot{
		X: round(meshWidth/2 + meshRadius*x), Y: round(meshHeight/2 + meshRadius*y), Anchor: "middle",
		Name: shortened(row.Name), Class: string(row.State), Title: fmt.Sprintf("%s (%s) at %s, %s", row.Name, row.ID, row.Addr, row.State),
	}
	if detailed && row.Link == api.LinkDirect {
		d.RTT = row.RTT
		if row.Tx != "–" && (row.Tx != idleRate || row.Rx != idleRate) {
			d.Rate = fmt.Sprintf("↑ %s ↓ %s", row.Tx, row.Rx)
		}
	}
	d.LabelX, d.LabelY = round(meshWidth/2+(meshRadius+20)*x), round(meshHeight/2+(meshRadius+26)*y+5)
	switch {
	case x > 0.3:
		d.Anchor = "start"
	case x < -0.3:
		d.Anchor = "end"
	}
	if row.Self {
		d.Class += " self"
	}
	return d
}

// idleRate is the rate of an idle link.
var idleRate = rateText(0)

func round(v float64) float64 { return math.Round(v*10) / 10 }

// shortened returns name, cut to nameLength characters.
func shortened(name string) string {
	if runes := []rune(name); len(runes) > nameLength {
		return string(runes[:nameLength-1]) + "…"
	}
	return name
}

// class returns the CSS class of the link to a peer.
func class(row peerRow) string {
	if row.Link == api.LinkDirect && row.Datapath == api.DatapathKernel {
		return string(api.DatapathKernel)
	}
	return string(row.Link)
}

// describe returns a sentence about how a peer is reached.
func describe(row peerRow) string {
	switch {
	case row.State != api.PeerAlive:
		return fmt.Sprintf("%s is %s", row.Name, row.State)
	case row.Link == api.LinkNone:
		return row.Name + " is not reached"
	case row.Via != "":
		return fmt.Sprintf("%s is reached over the relay %s", row.Name, row.Via)
	case row.Datapath == api.DatapathKernel:
		return fmt.Sprintf("%s is reached directly, by the kernel, round trip %s", row.Name, row.RTT)
	}
	return fmt.Sprintf("%s is reached directly, round trip %s", row.Name, row.RTT)
}

// linksTo returns the lines to a peer: one, or two over its relay. at has the positions of the nodes.
func linksTo(row peerRow, self peer.ID, at map[peer.ID][2]float64) []line {
	from, to := at[self], at[row.ID]
	if row.State != api.PeerAlive {
		return nil
	}
	via, relayed := at[row.Peer.Via]
	l := between(from, to, class(row), describe(row))
	if relayed {
		return []line{between(from, via, string(api.LinkRelay), describe(row)), between(via, to, string(api.LinkRelay), describe(row))}
	}
	return []line{l}
}

// others returns the lines between the other nodes that are alive. Two nodes have a link unless it is in broken.
func others(rows []peerRow, broken [][2]peer.ID, at map[peer.ID][2]float64) (lines []line) {
	bad := map[[2]peer.ID]bool{}
	for _, pair := range broken {
		bad[pair], bad[[2]peer.ID{pair[1], pair[0]}] = true, true
	}
	for i, a := range rows {
		for _, b := range rows[i+1:] {
			if a.Self || b.Self || a.State != api.PeerAlive || b.State != api.PeerAlive {
				continue
			}
			if bad[[2]peer.ID{a.ID, b.ID}] {
				lines = append(lines, between(at[a.ID], at[b.ID], "broken", fmt.Sprintf("%s and %s do not reach each other", a.Name, b.Name)))
				continue
			}
			lines = append(lines, between(at[a.ID], at[b.ID], "other", fmt.Sprintf("%s and %s reach each other", a.Name, b.Name)))
		}
	}
	return lines
}

func between(a, b [2]float64, class, title string) line {
	return line{X1: a[0], Y1: a[1], X2: b[0], Y2: b[1], Class: class, Title: title}
}
