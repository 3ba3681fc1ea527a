package node

import (
	"context"
	"net/netip"
	"slices"
	"sync"

	"weft/internal/peer"
	"weft/internal/signal"
	"weft/ipam"
	"weft/ipam/ring"
	"weft/mesh"
)

// ipamEvents collects what the allocator reports until handleEvents handles it. Its methods do not wait.
type ipamEvents struct {
	mesh   *mesh.Mesh
	update signal.Chan // set after each report

	mu           sync.Mutex
	bootstrapped bool      // guarded by mu
	reclaimed    []peer.ID // guarded by mu
}

func newIPAMEvents(m *mesh.Mesh) *ipamEvents { return &ipamEvents{mesh: m, update: signal.New()} }

// Bootstrapped implements ipam.Events: a range has been divided. The other nodes learn the cluster ID no later than the ring, so that
// nodes of another cluster are recognized from the beginning.
func (e *ipamEvents) Bootstrapped(ids map[netip.Prefix]ring.ClusterID) {
	publishClusterIDs(ids, e.mesh)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.bootstrapped = true
	e.update.Set()
}

// Reclaimed implements ipam.Events: the address space of a dead node belongs to another node.
func (e *ipamEvents) Reclaimed(dead peer.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.reclaimed = append(e.reclaimed, dead)
	e.update.Set()
}

// drain returns the reports since the last call.
func (e *ipamEvents) drain() (bootstrapped bool, reclaimed []peer.ID) {
	e.mu.Lock()
	defer e.mu.Unlock()
	bootstrapped, reclaimed = e.bootstrapped, e.reclaimed
	e.bootstrapped, e.reclaimed = false, nil
	return bootstrapped, reclaimed
}

// handleEvents passes what engines report to the parts that need it, until ctx ends.
func (n *node) handleEvents(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.members.update.C():
			n.membersChanged()
		case <-n.events.update.C():
			bootstrapped, reclaimed := n.events.drain()
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
	for _, member := range n.mesh.Members() {
		if member.State == mesh.StateLeft {
			n.registry.Forget(member.ID)
		}
	}
	n.datapath.SyncPeers()
}

// ownsAddresses reports whether a node owns addresses of any range.
func ownsAddresses(status ipam.Status, id peer.ID) bool {
	return slices.ContainsFunc(status.Ranges, func(r ipam.RangeStatus) bool {
		return slices.ContainsFunc(r.Owners, func(o ipam.Owner) bool { return o.ID == id })
	})
}
