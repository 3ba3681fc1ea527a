package statuspage

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"weft/internal/api"
	"weft/internal/peer"
)

// Sizes of the picture of groups, in units of its viewBox.
const (
	groupHeight = 70
	groupX      = 122
	groupText   = 24 // characters of a line
	selfLabel   = 10 // the same, of the name of this node
)

// group is the nodes that are reached in one way.
type group struct {
	class string // of its link
	text  string
	rows  []peerRow
}

// groupsOf divides all nodes but this one by how they are reached. It returns no empty groups.
func groupsOf(order []peerRow) (found []group) {
	all := []group{
		{class: "kernel", text: "direct, by the kernel"}, {class: "direct", text: "direct, in userspace"},
		{class: "relay", text: "over a relay"}, {class: "none", text: "not reached"}, {class: "none", text: "dead"},
	}
	for _, row := range order {
		if row.Self {
			continue
		}
		i := slices.IndexFunc(all, func(g group) bool { return g.class == class(row) })
		if row.State != api.PeerAlive {
			i = len(all) - 1
		}
		all[i].rows = append(all[i].rows, row)
	}
	for _, g := range all {
		if len(g.rows) > 0 {
			found = append(found, g)
		}
	}
	return found
}

// newGroupPicture draws this node and a bubble for each way to reach the others.
func newGroupPicture(order []peerRow) picture {
	groups := groupsOf(order)
	p := picture{Width: meshWidth, Height: float64(groupHeight*max(len(groups), 2)) + 10}
	from := point{42, p.Height / 2}
	self := newDot(order[0], from, 10)
	self.Labels = []label{{X: from.x, Y: from.y + 26, Anchor: "middle", Text: shortened(order[0].Name, selfLabel)}}
	for i, g := range groups {
		at := point{groupX, p.Height/2 + groupHeight*(float64(i)-float64(len(groups)-1)/2)}
		d := dot{
			X: at.x, Y: at.y, R: round(15 + 14*math.Sqrt(float64(len(g.rows))/float64(len(order)))), Class: "group " + g.class,
			Number: countText(len(g.rows)), Title: fmt.Sprintf("%s: %s", plural(len(g.rows), "node"), g.text),
			Labels: []label{{X: groupX + 38, Y: at.y - 2, Anchor: "start", Text: g.text}},
		}
		d.Labels = append(d.Labels, label{X: groupX + 38, Y: at.y + lineHeight, Anchor: "start", Class: "detail", Text: g.detail()})
		p.Nodes = append(p.Nodes, d)
		p.Links = append(p.Links, between(from, at, g.class, d.Title))
	}
	p.Nodes = append(p.Nodes, self)
	return p
}

// detail returns the median round trip of a group, or the names of nodes that need attention.
func (g group) detail() string {
	if g.class == "kernel" || g.class == "direct" {
		var trips []float64
		for _, row := range g.rows {
			if row.Peer.RTT > 0 {
				trips = append(trips, row.Peer.RTT)
			}
		}
		if len(trips) == 0 {
			return ""
		}
		slices.Sort(trips)
		return "median " + rttText(trips[len(trips)/2])
	}
	names := make([]string, len(g.rows))
	for i, row := range g.rows {
		names[i] = row.Name
	}
	return shortened(strings.Join(names, ", "), groupText)
}

// groupWords describes the groups for screen readers.
func groupWords(dots []dot) string {
	var words []string
	for _, d := range dots {
		if d.Number != "" {
			words = append(words, d.Title)
		}
	}
	return strings.Join(words, "; ")
}

// brokenNote counts the pairs of nodes without a direct link, which are not drawn between groups; empty if there are none.
func brokenNote(broken [][2]peer.ID) string {
	if len(broken) == 0 {
		return ""
	}
	return plural(len(broken), "pair") + " of nodes without a direct link"
}
