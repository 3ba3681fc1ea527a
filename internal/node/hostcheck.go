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
		Settings: n.cfg, Sealed: sealed, MTU: n.mtu, CNICache: hostports.CacheDir,
		Underlay: underlayAddrs{n.underlay, view{n.mesh, n.members}}, Containers: containers{n.ipam},
		Exposure: n.exposure, Logger: n.log.With("component", "hostcheck"),
	})
}

// underlayAddrs are the addresses of the nodes. It implements hostcheck.Underlay.
type underlayAddrs struct {
	self    *underlayFollower
	members datapath.Membership
}

// SelfAddr implements hostcheck.Underlay.
func (u underlayAddrs) SelfAddr() netip.Addr { return u.self.addr() }

// PeerAddrs implements hostcheck.Underlay.
func (u underlayAddrs) PeerAddrs() (addrs []netip.Addr) {
	for _, m := range u.members.Members() {
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
