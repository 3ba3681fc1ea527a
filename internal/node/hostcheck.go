package node

import (
	"net/netip"

	"weft/internal/datapath"
	"weft/internal/hostcheck"
	"weft/internal/hostports"
	"weft/internal/leases/holder"
	"weft/ipam"
)

// buildHostCheck makes the part that watches what other programs do to the host.
func (n *node) buildHostCheck(sealed bool) {
	n.hostCheck = hostcheck.New(hostcheck.Config{
		Settings: n.cfg, Sealed: sealed, Self: n.advertise, MTU: n.mtu, CNICache: hostports.CacheDir,
		Underlay: peerAddrs{view{n.mesh, n.members}}, Containers: containers{n.ipam}, Logger: n.log.With("component", "hostcheck"),
	})
}

// peerAddrs are the addresses of the other nodes. It implements hostcheck.Underlay.
type peerAddrs struct{ members datapath.Membership }

// PeerAddrs implements hostcheck.Underlay.
func (p peerAddrs) PeerAddrs() (addrs []netip.Addr) {
	for _, m := range p.members.Members() {
		addrs = append(addrs, m.Addr.Addr().Unmap())
	}
	return addrs
}

// containers are the containers with a lease. It implements hostcheck.Containers.
type containers struct{ ipam *ipam.Allocator }

// Attached implements hostcheck.Containers.
func (c containers) Attached(network, containerID, ifname string) bool {
	return len(c.ipam.Lookup(holder.ForContainer(network, containerID, ifname).String())) > 0
}
