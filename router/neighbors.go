package router

import (
	"sync/atomic"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/neighbor"
	"weft/tap"
)

// neighbors keeps ARP and IPv6 neighbor discovery from flooding the overlay. A query for an address is answered here if
// its holder was heard recently; otherwise it goes only to the peer that assigns that address, and to all peers if it is
// repeated, because that peer did not answer.
type neighbors struct {
	owners    AddressOwners // nil: all is flooded
	table     neighbor.Table
	questions neighbor.Questions

	answered, directed, own, flooded atomic.Uint64
}

// NeighborStats counts the address queries of this node's pods.
type NeighborStats struct {
	Answered uint64 // by this node
	Directed uint64 // sent to the one peer that assigns the address
	Own      uint64 // for an address that this node assigns: not sent
	Flooded  uint64 // sent to all peers, announcements included
}

func (n *neighbors) stats() NeighborStats {
	return NeighborStats{n.answered.Load(), n.directed.Load(), n.own.Load(), n.flooded.Load()}
}

// handleNeighbor handles a frame for all peers that may be an address query. done is false if the frame is to be
// flooded.
func (o *outbound) handleNeighbor(f *outgoing, room []byte) (done bool, err error) {
	n := &o.engine.neighbors
	if n.owners == nil || f.isSuper() || !neighbor.MayBe(f.Data) {
		return false, nil
	}
	m, ok := neighbor.Parse(f.Data)
	if !ok {
		return false, nil
	}
	if m.Kind != neighbor.Probe {
		n.table.Forget(m.Sender) // it is on this host
		o.engine.duplicates.NoteClaim(m.Sender, m.MAC, o.now)
	}
	if m.Kind != neighbor.Request && m.Kind != neighbor.Probe {
		n.flooded.Add(1)
		return false, nil
	}
	owner, known := n.owners.OwnerOf(m.Target)
	mac, at, fresh := n.table.Lookup(m.Target, o.now)
	holder := o.peers.byID[at]
	switch to := o.peers.byID[owner]; {
	// No answer for a peer on the kernel path: from it the bridge would learn the address at the TAP, and the frames that follow
	// would end there. The kernel path carries the query.
	case m.Kind == neighbor.Request && fresh && holder != nil && !holder.kernel.Load():
		n.answered.Add(1)
		return true, o.answer(m, mac)
	case known && n.questions.Repeated(m.Target, ether.Source(f.Data), o.now): // the address may have moved
	case known && owner == o.engine.self && !fresh:
		n.own.Add(1)
		return true, nil
	case known && to != nil && to.kernel.Load():
		n.directed.Add(1) // the kernel path has carried it there
		return true, nil
	case known && to != nil && to.reachable():
		n.directed.Add(1)
		return true, o.flood(f, room, to)
	}
	n.flooded.Add(1)
	return false, nil
}

// answer writes the answer to a query to the host.
func (o *outbound) answer(m neighbor.Message, mac ether.Addr) error {
	_, err := o.writer.write([]tap.Frame{{Data: neighbor.Answer(m, mac)}})
	return err
}

// learnNeighbor learns from a peer's frame at which hardware address an address is.
func (e *Engine) learnNeighbor(frame []byte, from peer.ID, now time.Time) {
	if m, ok := neighbor.Parse(frame); ok {
		e.neighbors.table.Learn(m, from, now)
		if m.Kind != neighbor.Probe {
			e.duplicates.NoteClaim(m.Sender, m.MAC, now)
		}
	}
}
