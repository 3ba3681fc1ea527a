package node

import (
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"weft/internal/datapath"
	"weft/internal/peer"
	"weft/internal/signal"
	"weft/mesh"
	"weft/router"
	"weft/router/session"
)

// meetPatience is how long after its start a node waits for owners of addresses that it has not met yet.
const meetPatience = 5 * time.Second

// members is the membership as the mesh last reported it, for parts that may not wait for the mesh: the allocator asks while it
// is locked. All methods may be called from any goroutine and take no lock.
type members struct {
	// constant
	self    peer.ID
	name    string // of this node
	started time.Time

	byID   atomic.Pointer[map[peer.ID]mesh.Member] // nil until the first report; the map is never changed
	update signal.Chan                             // set after each report
}

func newMembers(self peer.ID, name string) *members {
	return &members{self: self, name: name, started: time.Now(), update: signal.New()}
}

// MembersChanged implements mesh.Observer: it records a new membership.
func (m *members) MembersChanged(list []mesh.Member) {
	byID := make(map[peer.ID]mesh.Member, len(list))
	for _, member := range list {
		byID[member.ID] = member
	}
	m.byID.Store(&byID)
	m.update.Set()
}

// member returns what the mesh last reported about a node.
func (m *members) member(id peer.ID) (mesh.Member, bool) {
	byID := m.byID.Load()
	if byID == nil {
		return mesh.Member{}, false
	}
	member, ok := (*byID)[id]
	return member, ok
}

// Reachable reports whether a node is alive and messages reach it.
func (m *members) Reachable(id peer.ID) bool {
	member, ok := m.member(id)
	return ok && member.State == mesh.StateAlive && member.Route.Hops > 0
}

// awaited reports whether a node that is not reachable may be so within seconds: it is alive without a route, as after a restart of
// either end, or it has not been met since this node was started a moment ago.
func (m *members) awaited(id peer.ID, now time.Time) bool {
	member, ok := m.member(id)
	if !ok {
		return now.Sub(m.started) < meetPatience
	}
	return member.State == mesh.StateAlive && member.Route.Hops == 0
}

// Alive reports whether a node is alive.
func (m *members) Alive(id peer.ID) bool {
	member, ok := m.member(id)
	return ok && member.State == mesh.StateAlive
}

// NodeName returns the name of a node; empty where it is not known.
func (m *members) NodeName(id peer.ID) string {
	if id == m.self {
		return m.name
	}
	member, _ := m.member(id)
	return member.Name
}

// dnsMembership is the cluster as the registry of names sees it. It implements dns.Membership.
type dnsMembership struct {
	*members
	mesh *mesh.Mesh
}

// Known implements dns.Membership.
func (m dnsMembership) Known(id peer.ID) bool { return m.mesh.Knows(id) }

// ipamMembership is the cluster as the allocator sees it. It implements ipam.Membership.
type ipamMembership struct {
	*members
	mesh *mesh.Mesh
}

// Members implements ipam.Membership.
func (m ipamMembership) Members() []peer.ID { return m.mesh.Known() }

// Awaited implements ipam.Membership.
func (m ipamMembership) Awaited(id peer.ID) bool { return m.awaited(id, time.Now()) }

// Name implements ipam.Membership.
func (m ipamMembership) Name(id peer.ID) string { return m.NodeName(id) }

// view is the cluster as the datapath sees it. It implements datapath.Membership.
type view struct {
	mesh    *mesh.Mesh
	members *members
}

// Members implements datapath.Membership.
func (v view) Members() []datapath.Member {
	var list []datapath.Member
	for _, m := range v.mesh.Members() {
		if isLivePeer(m) {
			list = append(list, datapathMember(m))
		}
	}
	return list
}

// Addrs implements datapath.Membership.
func (v view) Addrs() []netip.Addr {
	var list []netip.Addr
	for _, m := range v.mesh.Members() {
		if !m.Self && m.State != mesh.StateLeft {
			list = append(list, m.Addr)
		}
	}
	return list
}

// Member implements datapath.Membership.
func (v view) Member(id peer.ID) (datapath.Member, bool) {
	m, ok := v.members.member(id)
	if !ok || !isLivePeer(m) {
		return datapath.Member{}, false
	}
	return datapathMember(m), true
}

// Dead implements datapath.Membership.
func (v view) Dead(id peer.ID) bool {
	m, ok := v.members.member(id)
	return ok && isSilent(m)
}

// isSilent reports whether m is dead because it does not answer. One that was shut out may answer, and keeps no path.
func isSilent(m mesh.Member) bool { return m.State == mesh.StateDead && m.Refused == 0 }

// NodeName implements datapath.Membership.
func (v view) NodeName(id peer.ID) string { return v.members.NodeName(id) }

// isLivePeer reports whether m is another node that is alive.
func isLivePeer(m mesh.Member) bool { return m.State == mesh.StateAlive && !m.Self }

func datapathMember(m mesh.Member) datapath.Member {
	d := datapath.Member{
		Peer: router.Peer{ID: m.ID, Public: m.Public, Accepts: m.Accepts, Addr: m.DataAddr(), DialOut: m.DialOut},
		Name: m.Name, Hops: m.Route.Hops, RTT: m.RTT, Offer: session.Offer(m.Capabilities), VNI: m.VNI, Direct: m.Direct,
		Gateway: m.Gateway,
	}
	if m.Route.Hops > 1 { // a node without any route is tried directly
		d.Via = m.Route.Via
	}
	return d
}

// gossip sends the messages of one channel. It implements ipam.Gossip.
type gossip struct {
	mesh    *mesh.Mesh
	channel mesh.ChannelID
	log     *slog.Logger
}

// Broadcast implements ipam.Gossip.
func (g gossip) Broadcast(delta []byte) {
	if err := g.mesh.Sender(g.channel).Broadcast(delta); err != nil {
		g.log.Error("cannot broadcast gossip", "channel", g.channel, "err", err)
	}
}

// Unicast implements ipam.Gossip.
func (g gossip) Unicast(to peer.ID, message []byte) error {
	return g.mesh.Sender(g.channel).Unicast(to, message)
}
