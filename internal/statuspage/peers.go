package statuspage

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"weft/internal/api"
	"weft/internal/peer"
)

// maxPeers bounds the tables of nodes.
const maxPeers = 100

// peersView is the table of nodes.
type peersView struct {
	Counts string    // such as "3 alive, 1 dead"
	Rows   []peerRow // nodes that are alive or dead: those that need attention first, this node last, otherwise by name
	More   int       // number of rows that are not shown
	Left   []peerRow // nodes that have left: they are folded away, at most maxPeers
	Gone   int       // number of all that have left
}

// peerRow is a row of the table of peers.
type peerRow struct {
	api.Peer
	LinkText  string
	Carrier   string // "by the kernel" and the carrier, "in userspace" or "via" and the name of the relay
	RTT       string
	MTUText   string // empty for a node that is not alive
	Flows     *flows // nil for this node
	DropCount string
	DropNames string // the reasons
}

// flows is traffic in both directions.
type flows struct {
	TxRate, RxRate, TxTotal, RxTotal string
}

func newPeersView(s Snapshot, r map[peer.ID]rate) peersView {
	names, counts := map[peer.ID]string{}, map[api.PeerState]int{}
	for _, p := range s.Peers {
		names[p.ID] = p.Name
		counts[p.State]++
	}
	var v peersView
	for _, p := range s.Peers {
		var known *rate
		if rate, ok := r[p.ID]; ok && p.State == api.PeerAlive {
			known = &rate
		}
		row := newPeerRow(p, names, known)
		if p.State == api.PeerLeft {
			v.Left = append(v.Left, row)
		} else {
			v.Rows = append(v.Rows, row)
		}
	}
	slices.SortStableFunc(v.Rows, func(a, b peerRow) int {
		return cmp.Or(cmp.Compare(a.rank(), b.rank()), cmp.Compare(a.Name, b.Name))
	})
	if n := len(v.Rows); n > maxPeers { // the last is this node
		v.Rows, v.More = slices.Delete(v.Rows, maxPeers-1, n-1), n-maxPeers
	}
	v.Gone = len(v.Left)
	v.Left = v.Left[:min(v.Gone, maxPeers)]
	var words []string
	for _, state := range []api.PeerState{api.PeerAlive, api.PeerDead, api.PeerLeft} {
		if counts[state] > 0 {
			words = append(words, fmt.Sprintf("%d %s", counts[state], state))
		}
	}
	v.Counts = strings.Join(words, ", ")
	return v
}

// rank orders rows by how much attention they need; the lowest is first.
func (r peerRow) rank() int {
	switch {
	case r.Self:
		return 4
	case r.State != api.PeerAlive:
		return 0
	case r.Link == api.LinkNone:
		return 1
	case r.Link == api.LinkRelay:
		return 2
	}
	return 3
}

func newPeerRow(p api.Peer, names map[peer.ID]string, r *rate) peerRow {
	row := peerRow{Peer: p, LinkText: dash, RTT: dash, DropCount: dash}
	if p.State == api.PeerAlive {
		row.MTUText = countText(p.MTU)
	}
	switch {
	case p.Self || p.State != api.PeerAlive:
	case p.Link == api.LinkNone:
		row.LinkText = "not reached"
	case p.Link == api.LinkRelay:
		row.LinkText, row.Carrier = "relay", "via "+names[p.Via]
	case p.Datapath == api.DatapathKernel:
		row.LinkText, row.Carrier = "direct", "by the kernel, "+string(p.Carrier)
	default:
		row.LinkText, row.Carrier = "direct", "in userspace"
	}
	if p.Self {
		return row
	}
	if p.RTT > 0 && p.State == api.PeerAlive {
		row.RTT = rttText(p.RTT)
	}
	row.Flows = newFlows(Traffic{p.TxBytes, p.RxBytes}, r)
	var total uint64
	var reasons []string
	for _, d := range sortedDrops(p.Drops) {
		total += d.Count
		reasons = append(reasons, d.Reason)
	}
	row.DropCount, row.DropNames = countText(total), strings.Join(reasons, ", ")
	return row
}

// newFlows formats traffic; r is nil if its rate is not known.
func newFlows(total Traffic, r *rate) *flows {
	f := &flows{TxRate: dash, RxRate: dash, TxTotal: bytesText(total.Tx), RxTotal: bytesText(total.Rx)}
	if r != nil {
		f.TxRate, f.RxRate = rateText(r.tx), rateText(r.rx)
	}
	return f
}
