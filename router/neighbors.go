package router

import (
	"net/netip"
	"sync/atomic"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/neighbor"
	"weft/tap"
)

// neighbors keeps ARP and neighbour discovery from flooding the overlay: who looks for an address is answered here, where
// its holder was heard of lately, or else the question goes to the one peer that gives out that address.
type neighbors struct {
	owner func(netip.Addr) (peer.ID, bool) // nil: all is flooded
	table neighbor.Table

	answered, directed, own, flooded atomic.Uint64
}

// NeighborStats counts the questions of this node's pods for other addresses.
type NeighborStats struct {
	Answered uint64 // here
	Directed uint64 // sent to the one peer that gives out the address
	Own      uint64 // for an address that this node gives out: sent to nobody
	Flooded  uint64 // sent to everybody, announcements among them
}

func (n *neighbors) stats() NeighborStats {
	return NeighborStats{n.answered.Load(), n.directed.Load(), n.own.Load(), n.flooded.Load()}
}

// ask deals with a frame for everybody that may be a question for an address. done is false where it is to be flooded as
// all others.
func (o *outbound) ask(f *outgoing, room []byte, peers *snapshot, now time.Time) (done bool, err error) {
	n := &o.engine.neighbors
	if n.owner == nil || f.isSuper() || !neighbor.MayBe(f.Data) {
		return false, nil
	}
	m, ok := neighbor.Parse(f.Data)
	if !ok {
		return false, nil
	}
	if m.Kind != neighbor.Probe {
		n.table.Forget(m.Sender) // it is here
		o.engine.duplicates.claimed(m.Sender, m.MAC, now)
	}
	if m.Kind != neighbor.Request && m.Kind != neighbor.Probe {
		n.flooded.Add(1)
		return false, nil
	}
	owner, known := n.owner(m.Target)
	mac, at, fresh := n.table.Lookup(m.Target, now)
	switch to := peers.byID[owner]; {
	case m.Kind == neighbor.Request && fresh && peers.byID[at] != nil:
		n.answered.Add(1)
		return true, o.answer(m, mac)
	case known && owner == o.engine.self && !fresh:
		n.own.Add(1)
		return true, nil
	case known && to != nil && to.Kernel:
		n.directed.Add(1) // the kernel's path has taken it there
		return true, nil
	case known && to != nil && to.reached():
		n.directed.Add(1)
		return true, o.flood(f, room, to, now)
	}
	n.flooded.Add(1)
	return false, nil
}

func (o *outbound) answer(m neighbor.Message, mac ether.Addr) error {
	_, err := o.host.write([]tap.Frame{{Data: neighbor.Answer(m, mac)}})
	return err
}

// overhear takes down what a frame from a peer says of where addresses are.
func (e *Engine) overhear(frame []byte, from peer.ID, now time.Time) {
	if m, ok := neighbor.Parse(frame); ok {
		e.neighbors.table.Learn(m, from, now)
		if m.Kind != neighbor.Probe {
			e.duplicates.claimed(m.Sender, m.MAC, now)
		}
	}
}
