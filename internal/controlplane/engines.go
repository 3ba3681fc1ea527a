package controlplane

import (
	"log/slog"
	"time"

	"weft/internal/dns"
	"weft/internal/peer"
	"weft/ipam"
	"weft/mesh"
)

// ForDNS returns the cluster as the registry of names sees it.
func ForDNS(members *Members, m *mesh.Mesh) dns.Membership { return dnsMembership{members, m} }

// dnsMembership implements dns.Membership.
type dnsMembership struct {
	*Members
	mesh *mesh.Mesh
}

// Known implements dns.Membership.
func (m dnsMembership) Known(id peer.ID) bool { return m.mesh.Knows(id) }

// ForIPAM returns the cluster as the allocator sees it.
func ForIPAM(members *Members, m *mesh.Mesh) ipam.Membership { return ipamMembership{members, m} }

// ipamMembership implements ipam.Membership.
type ipamMembership struct {
	members *Members
	mesh    *mesh.Mesh
}

// Reachable implements ipam.Membership.
func (m ipamMembership) Reachable(id peer.ID) bool { return m.members.Reachable(id) }

// Members implements ipam.Membership.
func (m ipamMembership) Members() []peer.ID { return m.mesh.Known() }

// Awaited implements ipam.Membership.
func (m ipamMembership) Awaited(id peer.ID) bool { return m.members.awaited(id, time.Now()) }

// Name implements ipam.Membership.
func (m ipamMembership) Name(id peer.ID) string { return m.members.NodeName(id) }

// Gossip sends the messages of one channel. It implements the gossip of the allocator and of the registry of names.
type Gossip struct {
	sender  mesh.Sender
	channel mesh.ChannelID
	log     *slog.Logger
}

var (
	_ ipam.Gossip = Gossip{}
	_ dns.Gossip  = Gossip{}
)

// GossipOn returns the gossip of one channel of m, which logs to log.
func GossipOn(m *mesh.Mesh, channel mesh.ChannelID, log *slog.Logger) Gossip {
	return Gossip{m.Sender(channel), channel, log}
}

// Broadcast implements ipam.Gossip.
func (g Gossip) Broadcast(delta []byte) {
	if err := g.sender.Broadcast(delta); err != nil {
		g.log.Error("cannot broadcast gossip", "channel", g.channel, "err", err)
	}
}

// Unicast implements ipam.Gossip.
func (g Gossip) Unicast(to peer.ID, message []byte) error { return g.sender.Unicast(to, message) }
