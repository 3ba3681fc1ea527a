// Package topology computes routes in a network in which nearly all nodes reach one another directly.
//
// Each node publishes only the exceptions among its links: the peers that are alive and that it does not reach, and, when
// it can only dial out (behind a NAT, or a firewall that admits nothing but answers), the links that it has opened. Every
// pair of nodes without an exception has a link. A link is broken when one of its two nodes publishes it as broken, since
// frames have to pass in both directions.
//
// The package is pure: no goroutine, no I/O, no clock.
package topology

import (
	"math/bits"
	"slices"
	"time"

	"weft/internal/peer"
)

// MaxHops is the largest number of links on a route.
const MaxHops = 3

// Links are the exceptions that a node publishes. The zero Links has none.
type Links struct {
	// DialOut means that the node can be reached only over links that it has opened itself.
	DialOut bool
	// Broken are the peers that are alive and that the node does not reach, or that do not reach it.
	Broken []peer.ID
	// Open are the peers to which a node with DialOut has opened a link. It has no meaning without DialOut.
	Open []peer.ID
}

// IsZero reports whether there are no exceptions.
func (l Links) IsZero() bool { return !l.DialOut && len(l.Broken) == 0 && len(l.Open) == 0 }

// Node is a node that is alive, as an input of Routes.
type Node struct {
	ID peer.ID
	// RTT is the round-trip time to it from the node for which routes are computed; 0 when not known.
	RTT time.Duration
}

// Route is a route to a node.
type Route struct {
	// Via is the first node on the route: the destination itself for a direct link.
	Via peer.ID
	// Hops is the number of links on the route, from 1 to MaxHops.
	Hops int
}

// Routes returns the routes from self to each of nodes that it can reach, by ID. published are the exceptions of each node,
// including self; nodes without exceptions may be left out. Routes prefers the relay with the fewest hops, then with the
// shortest round trip, rounded to a power of two in milliseconds so that routes do not change with every measurement, then
// with the lowest ID. In a network of n nodes of which m are not reached directly it takes O(n m) steps.
//
// Nodes that know the same exceptions compute routes that fit together: following them leads to the destination in the
// number of hops that the first node has computed.
func Routes(self peer.ID, nodes []Node, published map[peer.ID]Links) map[peer.ID]Route {
	routes := make(map[peer.ID]Route, len(nodes))
	links := newGraph(published)
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
		relays = next // one hop further away: the nearer relays reach none of the rest
	}
	return routes
}

// relay is a node through which others may be reached, with the first node on the route to it.
type relay struct {
	id, via peer.ID
	cost    int // number of bits of the round trip to via in milliseconds
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

type graph map[peer.ID]node

func newGraph(published map[peer.ID]Links) graph {
	g := make(graph, len(published))
	for id, l := range published {
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

// linked reports whether two nodes have a direct link.
func (g graph) linked(a, b peer.ID) bool {
	x, y := g[a], g[b]
	switch {
	case x.dialOut && x.open[b] || y.dialOut && y.open[a]:
		return true
	case x.dialOut || y.dialOut:
		return false
	}
	return !x.broken[b] && !y.broken[a]
}
