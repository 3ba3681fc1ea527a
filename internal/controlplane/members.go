// Package controlplane connects the engines of a node's control plane: the mesh, the allocator and the registry of names. It has what
// one engine sees of another. The daemon and the measurement of large networks both assemble their nodes with it.
package controlplane

import (
	"sync/atomic"
	"time"

	"weft/internal/dns"
	"weft/internal/peer"
	"weft/internal/signal"
	"weft/mesh"
)

// meetPatience is how long after its start a node waits for owners of addresses that it has not met yet.
const meetPatience = 5 * time.Second

// Members is the membership as the mesh last reported it, for parts that may not wait for the mesh: the allocator asks while it is
// locked. It implements mesh.Observer. All methods may be called from any goroutine and take no lock.
type Members struct {
	// constant
	self    peer.ID
	name    string // of this node
	started time.Time

	byID   atomic.Pointer[map[peer.ID]*mesh.Member] // nil until the first report; the map and the members are never changed
	update signal.Chan                              // set after each report
}

var _ mesh.Observer = (*Members)(nil)

// NewMembers returns the membership of the node self with a name, without any report yet.
func NewMembers(self peer.ID, name string) *Members {
	return &Members{self: self, name: name, started: time.Now(), update: signal.New()}
}

// MembersChanged implements mesh.Observer: it records a new membership.
func (m *Members) MembersChanged(list []mesh.Member) {
	byID := make(map[peer.ID]*mesh.Member, len(list))
	for i := range list {
		byID[list[i].ID] = &list[i]
	}
	m.byID.Store(&byID)
	m.update.Set()
}

// Updates returns the channel that receives a value after one or more reports. It has one receiver.
func (m *Members) Updates() <-chan struct{} { return m.update.C() }

// Self returns the ID of this node.
func (m *Members) Self() peer.ID { return m.self }

// Member returns what the mesh last reported about a node.
func (m *Members) Member(id peer.ID) (mesh.Member, bool) {
	if member := m.find(id); member != nil {
		return *member, true
	}
	return mesh.Member{}, false
}

// find returns what the mesh last reported about a node; nil: nothing.
func (m *Members) find(id peer.ID) *mesh.Member {
	if byID := m.byID.Load(); byID != nil {
		return (*byID)[id]
	}
	return nil
}

// Reachable reports whether a node is alive and messages reach it.
func (m *Members) Reachable(id peer.ID) bool {
	member := m.find(id)
	return member != nil && member.State == mesh.StateAlive && member.Route.Hops > 0
}

// awaited reports whether a node that is not reachable may be so within seconds: it is alive without a route, as after a restart of
// either end, or it has not been met since this node was started a moment ago.
func (m *Members) awaited(id peer.ID, now time.Time) bool {
	member := m.find(id)
	if member == nil {
		return now.Sub(m.started) < meetPatience
	}
	return member.State == mesh.StateAlive && member.Route.Hops == 0
}

// Alive reports whether a node is alive.
func (m *Members) Alive(id peer.ID) bool {
	member := m.find(id)
	return member != nil && member.State == mesh.StateAlive
}

// NodeName returns the name of a node; empty where it is not known.
func (m *Members) NodeName(id peer.ID) string {
	if id == m.self {
		return m.name
	}
	if member := m.find(id); member != nil {
		return member.Name
	}
	return ""
}

// ForgetLeft drops the names of the nodes that have left the network.
func (m *Members) ForgetLeft(registry *dns.Registry) {
	byID := m.byID.Load()
	if byID == nil {
		return
	}
	for id, member := range *byID {
		if member.State == mesh.StateLeft {
			registry.Forget(id)
		}
	}
}
