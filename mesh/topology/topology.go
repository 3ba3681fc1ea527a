// Package topology computes ways between the nodes of a network of which nearly all reach one another.
//
// Each node tells the others only what is out of the ordinary: alive peers that it does not reach, and, where it can only
// dial out (behind a NAT or a firewall that lets in nothing but answers), the links that it has opened. What nobody speaks
// of is a link. A link that one of its ends calls broken is broken: frames have to pass both ways.
//
// The package is pure: no goroutine, no I/O, no clock.
package topology

import (
	"math/bits"
	"slices"
	"time"

	"weft/internal/peer"
)

// MaxHops is how many links a way may have.
const MaxHops = 3

// Links is what a node tells of its links. The zero Links is that of a node of which there is nothing to tell.
type Links struct {
	// DialOut: the node is reached only over links that it has opened itself.
	DialOut bool
	// Broken are alive peers that it does not reach, or that do not reach it.
	Broken []peer.ID
	// Open are the links of a node with DialOut.
	Open []peer.ID
}

// IsZero reports whether there is nothing to tell.
func (l Links) IsZero() bool { return !l.DialOut && len(l.Broken) == 0 && len(l.Open) == 0 }

// Node is a node that is alive.
type Node struct {
	ID peer.ID
	// RTT is the round trip to it from the node that asks for ways; 0 where that is not known.
	RTT time.Duration
}

// Route is the way to a node.
type Route struct {
	// Via is the first node on the way: the node itself where the link is direct.
	Via peer.ID
	// Hops is the number of links, at most MaxHops.
	Hops int
}

// Routes returns the ways from self to those of nodes that it reaches, by ID. told is what each node, self among them,
// tells of its links; nodes that tell nothing need not be in it. Of relays those with the fewest hops are chosen, then
// those with the shortest round trip, to a power of two milliseconds, so that ways do not change with every measurement,
// then the one with the lowest ID. In a network of n nodes of which m are not reached directly it takes O(n m) steps.
func Routes(self peer.ID, nodes []Node, told map[peer.ID]Links) map[peer.ID]Route {
	routes := make(map[peer.ID]Route, len(nodes))
	links := graph(told)
	var relays []relay // in the order of preference
	var rest []peer.ID
	for _, n := range nodes {
		switch {
		case n.ID == self:
		case links.linked(self, n.ID):
			routes[n.ID] = Route{Via: n.ID, Hops: 1}
			relays = append(relays, relay{id: n.ID, via: n.ID, cost: bits.Len64(uint64(n.RTT.Milliseconds()))})
		default:
			rest = append(rest, n.ID)
		}
	}
	for hops := 2; hops <= MaxHops && len(rest) > 0 && len(relays) > 0; hops++ {
		slices.SortFunc(relays, relay.compare)
		var next []relay
		rest = slices.DeleteFunc(rest, func(id peer.ID) bool {
			i := slices.IndexFunc(relays, func(r relay) bool { return links.linked(r.id, id) })
			if i < 0 {
				return false
			}
			routes[id] = Route{Via: relays[i].via, Hops: hops}
			next = append(next, relay{id: id, via: relays[i].via, cost: relays[i].cost})
			return true
		})
		relays = next // those one hop further away: nearer ones reach none of the rest
	}
	return routes
}

// relay is a node by which others may be reached, and by whom it is reached itself.
type relay struct {
	id, via peer.ID
	cost    int
}

func (r relay) compare(other relay) int {
	if r.cost != other.cost {
		return r.cost - other.cost
	}
	return r.id.Compare(other.id)
}

// node is Links with its lists as sets.
type node struct {
	dialOut      bool
	broken, open map[peer.ID]bool
}

type graphOf map[peer.ID]node

func graph(told map[peer.ID]Links) graphOf {
	g := make(graphOf, len(told))
	for id, l := range told {
		g[id] = node{dialOut: l.DialOut, broken: set(l.Broken), open: set(l.Open)}
	}
	return g
}

func set(ids []peer.ID) map[peer.ID]bool {
	s := make(map[peer.ID]bool, len(ids))
	for _, id := range ids {
		s[id] = true
	}
	return s
}

// linked reports whether two nodes reach each other.
func (g graphOf) linked(a, b peer.ID) bool {
	x, y := g[a], g[b]
	switch {
	case x.dialOut && x.open[b] || y.dialOut && y.open[a]:
		return true
	case x.dialOut || y.dialOut:
		return false
	}
	return !x.broken[b] && !y.broken[a]
}
