package node

import (
	"net/netip"

	"weft/internal/controlplane"
	"weft/internal/datapath"
	"weft/internal/peer"
	"weft/mesh"
	"weft/router"
	"weft/router/session"
)

// view is the cluster as the datapath sees it. It implements datapath.Membership.
type view struct {
	mesh    *mesh.Mesh
	members *controlplane.Members
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
	m, ok := v.members.Member(id)
	if !ok || !isLivePeer(m) {
		return datapath.Member{}, false
	}
	return datapathMember(m), true
}

// Dead implements datapath.Membership.
func (v view) Dead(id peer.ID) bool {
	m, ok := v.members.Member(id)
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
