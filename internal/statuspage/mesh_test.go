package statuspage

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/peer"
)

// drawn returns the picture of a snapshot.
func drawn(s Snapshot) picture { return newView(s, nil, time.Time{}).Mesh }

// classes counts the links of a picture by class.
func classes(p picture) map[string]int {
	counts := map[string]int{}
	for _, l := range p.Links {
		counts[l.Class]++
	}
	return counts
}

// troubled returns a network of n nodes: n1 is reached by the kernel, n2 over it, n3 not at all, n4 is dead, n5 has left.
func troubled(n int) Snapshot {
	s := network(n)
	s.Peers[1].Datapath, s.Peers[1].Carrier = api.DatapathKernel, api.CarrierVXLAN
	s.Peers[2].Link, s.Peers[2].Via = api.LinkRelay, id(1)
	s.Peers[3].Link = api.LinkNone
	s.Peers[4].State, s.Peers[4].Link = api.PeerDead, api.LinkNone
	s.Peers[5].State, s.Peers[5].Link = api.PeerLeft, api.LinkNone
	s.Broken = [][2]peer.ID{{id(2), id(1)}}
	return s
}

func TestPictureOfFew(t *testing.T) {
	p := drawn(troubled(6))
	want := map[string]int{"kernel": 1, "relay": 2, "none": 2, "broken": 1, "other": 2}
	if got := classes(p); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("links %v, want %v", got, want)
	}
	for _, want := range []string{
		"n1 is reached directly, by the kernel, vxlan", "n2 is reached over a relay, via n1", "n3 is not reached", "n4 is dead",
	} {
		if !strings.Contains(p.Words, want) {
			t.Errorf("%q does not contain %q", p.Words, want)
		}
	}
	if len(p.Nodes) != 5 || strings.Contains(p.Words, "n5") {
		t.Errorf("a node that left is drawn: %d nodes, %s", len(p.Nodes), p.Words)
	}
	if first := p.Nodes[0]; math.Abs(first.X-meshMiddle) > 1 || first.Class != "alive self" {
		t.Errorf("this node is not at the top: %+v", first)
	}
}

// TestLegend: the legend explains what is drawn, and nothing else.
func TestLegend(t *testing.T) {
	for _, c := range []struct {
		s    Snapshot
		want string
	}{
		{network(1), "[]"},
		{network(2), "[{direct direct, in userspace}]"},
		{network(3), "[{direct direct, in userspace} {other between other nodes}]"},
		{network(9), "[{direct direct, in userspace}]"},
		{network(meshNodes + 1), "[]"},
		{troubled(6), fmt.Sprint([]legendKey{legend[0], legend[2], legend[3], legend[4], legend[5]})},
	} {
		if got := fmt.Sprint(drawn(c.s).Legend); got != c.want {
			t.Errorf("of %d nodes: %s, want %s", len(c.s.Peers), got, c.want)
		}
	}
}

func TestPictureOfMany(t *testing.T) {
	p := drawn(troubled(meshNodes))
	if first := p.Nodes[0]; len(p.Nodes) != meshNodes-1 || first.X != meshMiddle || first.Y != p.Height/2 {
		t.Errorf("%d nodes, this one at %v, %v", len(p.Nodes), first.X, first.Y)
	}
	if got := classes(p); got["other"] != 0 || got["broken"] != 1 {
		t.Errorf("links %v", got)
	}
}

func TestPictureOfGroups(t *testing.T) {
	p := drawn(troubled(62))
	var groups []string
	for _, d := range p.Nodes {
		if d.Number != "" {
			groups = append(groups, d.Number+" "+d.Labels[0].Text+", "+d.Labels[1].Text)
		}
	}
	want := "[1 direct, by the kernel, median 0.50\u00a0ms " +
		"56 direct, in userspace, median 0.50\u00a0ms 1 over a relay, n2 1 not reached, n3 1 dead, n4]"
	if fmt.Sprint(groups) != want {
		t.Errorf("%v\nwant %s", groups, want)
	}
	if p.Words != "1 node: direct, by the kernel; 56 nodes: direct, in userspace; 1 node: over a relay; 1 node: not reached; 1 node: dead" {
		t.Error(p.Words)
	}
	if p.Note != "1 pair of nodes without a direct link" {
		t.Error(p.Note)
	}
}

// TestPictureFits: no dot and no label is outside of the picture, however many nodes there are.
func TestPictureFits(t *testing.T) {
	const wide = 7.5 // of a character, in units
	for n := 1; n <= meshNodes+10; n++ {
		s := network(n)
		for i := range s.Peers {
			s.Peers[i].Name = "a-long-name-of-a-node"
		}
		p := drawn(s)
		for _, d := range p.Nodes {
			if d.X-d.R < 0 || d.X+d.R > p.Width || d.Y-d.R < 0 || d.Y+d.R > p.Height {
				t.Errorf("of %d nodes: %+v is outside of %v x %v", n, d, p.Width, p.Height)
			}
			for _, l := range d.Labels {
				half := wide * float64(len([]rune(l.Text))) / 2
				aside := l.Anchor == "middle" && (l.X-half < -8 || l.X+half > p.Width+8)
				if l.Turn == "" && (aside || l.Y < lineHeight-4 || l.Y > p.Height) {
					t.Errorf("of %d nodes: %+v is outside of %v x %v", n, l, p.Width, p.Height)
				}
			}
		}
	}
}
