package statuspage

import (
	"math"
	"strings"
	"testing"

	"weft/internal/api"
)

// TestFullRing: a single owner is drawn as a whole ring, not as a line.
func TestFullRing(t *testing.T) {
	v := newRangeView(network(1).Ranges[0])
	if len(v.Arcs) != 1 || strings.Count(v.Arcs[0].Path, "M") != 2 {
		t.Errorf("%+v", v.Arcs)
	}
	if v.Words != "n0 owns 100 %, with 50 of 100 addresses in use" || v.Scattered {
		t.Errorf("%q, scattered %v", v.Words, v.Scattered)
	}
}

// TestRing: arcs have the colors of the table, numbers are in groups, and an owner of several parts is explained.
func TestRing(t *testing.T) {
	v := newRangeView(Range{
		Owners: []api.IPAMOwner{{ID: id(0), Name: "a", Addresses: 1048570, Free: 1048566}, {ID: id(1), Name: "b", Addresses: 4, Free: 4}},
		Parts:  []Part{{Owner: id(0), Length: 0.5}, {Owner: id(1), Start: 0.5, Length: 0.1}, {Owner: id(0), Start: 0.6, Length: 0.4}},
	})
	if v.Arcs[0].Color != v.Owners[0].Color || v.Arcs[1].Color != v.Owners[1].Color || v.Arcs[2].Color != v.Owners[0].Color {
		t.Errorf("arcs %+v, owners %+v", v.Arcs, v.Owners)
	}
	if v.Used != "4" || v.Total != "1\u202f048\u202f574" || !v.Scattered || v.Owners[0].Parts != 2 {
		t.Errorf("%s of %s, scattered %v, %+v", v.Used, v.Total, v.Scattered, v.Owners[0])
	}
	if v.Owners[0].Share != "> 99 %" || v.Owners[1].Share != "< 1 %" {
		t.Errorf("shares %s and %s", v.Owners[0].Share, v.Owners[1].Share)
	}
}

// TestManyOwners: further owners are folded away, and still described.
func TestManyOwners(t *testing.T) {
	v := newRangeView(network(ringOwners + 3).Ranges[0])
	if len(v.Owners) != ringOwners || len(v.More) != 3 || !strings.Contains(v.Words, "n14 owns 7 %") {
		t.Errorf("%d owners, %d more, %s", len(v.Owners), len(v.More), v.Words)
	}
}

// TestThousandNodes: the page stays small, and shows what needs attention.
func TestThousandNodes(t *testing.T) {
	s := network(1000)
	for i := range s.Peers {
		s.Peers[i].State = api.PeerAlive
		if i == 990 {
			s.Peers[i].State = api.PeerDead
		}
	}
	v := newPeersView(s, nil)
	if len(v.Rows) != maxPeers || v.More != 900 || v.Rows[0].Name != "n990" || !v.Rows[maxPeers-1].Self {
		t.Errorf("%d rows from %s, %d more", len(v.Rows), v.Rows[0].Name, v.More)
	}
	for i := range s.Peers {
		s.Peers[i].State = api.PeerLeft
	}
	if v := newPeersView(s, nil); v.Gone != 1000 || len(v.Left) != maxPeers {
		t.Errorf("%d left, %d are shown", v.Gone, len(v.Left))
	}
	r := newRangeView(s.Ranges[0])
	var length float64
	parts := 0
	for _, d := range drawnParts(s.Ranges[0].Parts) {
		length += d.Length
		parts += d.parts
	}
	if len(r.Arcs) > ringArcs || parts != 1000 || math.Abs(length-1) > 1e-6 {
		t.Errorf("%d arcs for %d parts of the length %f", len(r.Arcs), parts, length)
	}
	if len(r.Owners)+len(r.More)+r.Others != 1000 || len(r.More) != maxOwners || !strings.HasSuffix(r.Words, "888 owners more") {
		t.Errorf("%d and %d owners, %d others, %s", len(r.Owners), len(r.More), r.Others, r.Words[len(r.Words)-40:])
	}
}
