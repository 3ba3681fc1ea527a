package node

import (
	"context"
	"slices"

	"weft/internal/peer"
	"weft/ipam"
)

// handleEvents passes what engines report to the parts that need it, until ctx ends.
func (n *node) handleEvents(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.members.Updates():
			n.membersChanged()
		case <-n.events.Updates():
			bootstrapped, reclaimed := n.events.Drain()
			if bootstrapped {
				n.leases.Recheck()
			}
			for _, id := range reclaimed {
				n.cluster().forgetNode(id)
			}
		}
	}
}

// membersChanged drops the names of nodes that left, and passes the membership to the datapath.
func (n *node) membersChanged() {
	n.members.ForgetLeft(n.registry)
	n.datapath.SyncPeers()
}

// ownsAddresses reports whether a node owns addresses of any range.
func ownsAddresses(status ipam.Status, id peer.ID) bool {
	return slices.ContainsFunc(status.Ranges, func(r ipam.RangeStatus) bool {
		return slices.ContainsFunc(r.Owners, func(o ipam.Owner) bool { return o.ID == id })
	})
}
