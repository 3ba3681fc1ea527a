package topology

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"weft/internal/peer"
)

func id(n int) peer.ID { return peer.ID{0: byte(n >> 8), 1: byte(n), 7: 1} }

func ids(list ...int) (all []peer.ID) {
	for _, n := range list {
		all = append(all, id(n))
	}
	return all
}

func nodes(n int) (all []Node) {
	for i := range n {
		all = append(all, Node{ID: id(i)})
	}
	return all
}

func TestRoutes(t *testing.T) {
	direct := func(n int) Route { return Route{id(n), 1} }
	for _, tt := range []struct {
		name      string
		nodes     []Node
		published map[peer.ID]Links
		want      map[peer.ID]Route
	}{
		{"no exceptions are a full mesh", nodes(3), nil, map[peer.ID]Route{id(1): direct(1), id(2): direct(2)}},
		{"one relay", nodes(3), map[peer.ID]Links{id(0): {Broken: ids(2)}}, map[peer.ID]Route{id(1): direct(1), id(2): {id(1), 2}}},
		{
			"one of two nodes publishes the break", nodes(3), map[peer.ID]Links{id(2): {Broken: ids(0)}},
			map[peer.ID]Route{id(1): direct(1), id(2): {id(1), 2}},
		},
		{
			"the nearer relay", []Node{{id(0), 0}, {id(1), 40 * time.Millisecond}, {id(2), 3 * time.Millisecond}, {id(3), 0}},
			map[peer.ID]Links{id(0): {Broken: ids(3)}},
			map[peer.ID]Route{id(1): direct(1), id(2): direct(2), id(3): {id(2), 2}},
		},
		{
			"two relays", nodes(4), map[peer.ID]Links{id(0): {Broken: ids(2, 3)}, id(1): {Broken: ids(3)}},
			map[peer.ID]Route{id(1): direct(1), id(2): {id(1), 2}, id(3): {id(1), 3}},
		},
		{
			"no route of four links", nodes(5),
			map[peer.ID]Links{id(0): {Broken: ids(2, 3, 4)}, id(1): {Broken: ids(3, 4)}, id(2): {Broken: ids(4)}},
			map[peer.ID]Route{id(1): direct(1), id(2): {id(1), 2}, id(3): {id(1), 3}},
		},
		{
			"a node that can only dial out is reached over the links that it has opened", nodes(3),
			map[peer.ID]Links{id(2): {DialOut: true, Open: ids(1)}},
			map[peer.ID]Route{id(1): direct(1), id(2): {id(1), 2}},
		},
		{
			"two nodes that can only dial out, with a link between them", nodes(3),
			map[peer.ID]Links{id(0): {DialOut: true, Open: ids(1, 2)}, id(2): {DialOut: true, Open: ids(1)}},
			map[peer.ID]Route{id(1): direct(1), id(2): direct(2)},
		},
		{"a node without any link", nodes(2), map[peer.ID]Links{id(1): {DialOut: true}}, map[peer.ID]Route{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := Routes(id(0), tt.nodes, tt.published)
			if len(got) != len(tt.want) {
				t.Errorf("routes to %d nodes, want %d: %v", len(got), len(tt.want), got)
			}
			for n, want := range tt.want {
				if got[n] != want {
					t.Errorf("to %s: %v, want %v", n, got[n], want)
				}
			}
		})
	}
}

// TestRoutesLead: when all nodes know the same exceptions, following the routes hop by hop leads to the destination, in the
// number of links that the first node computed, and over links that are not broken.
func TestRoutesLead(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 12).Draw(t, "nodes")
		published := map[peer.ID]Links{}
		for i := range n {
			var l Links
			l.DialOut = rapid.IntRange(0, 4).Draw(t, "dial out") == 0
			for j := range n {
				switch rapid.IntRange(0, 5).Draw(t, "link") {
				case 0, 1:
					l.Broken = append(l.Broken, id(j))
				case 2:
					l.Open = append(l.Open, id(j))
				}
			}
			published[id(i)] = l
		}
		tables := make([]map[peer.ID]Route, n)
		for i := range n {
			tables[i] = Routes(id(i), nodes(n), published)
		}
		for from := range n {
			for to, route := range tables[from] {
				at, left := from, route.Hops
				for id(at) != to {
					step, ok := tables[at][to]
					if !ok || step.Hops > left {
						t.Fatalf("from %d to %s: at %d there is %v with %d left", from, to, at, step, left)
					}
					if !newGraph(published).linked(id(at), step.Via) {
						t.Fatalf("from %d to %s: no link from %d to %s", from, to, at, step.Via)
					}
					at, left = int(step.Via[0])<<8|int(step.Via[1]), left-1
				}
			}
		}
	})
}
