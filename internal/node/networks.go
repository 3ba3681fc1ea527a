package node

import (
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"time"

	"weft/internal/dns"
)

// networksLabel ends the names of Docker networks: NETWORK.BITS.networks, for an address in the subnet.
const networksLabel = "networks"

// networksAge is how old the subnets of networks may be.
const networksAge = time.Second

// networks are the subnets of the Docker networks of all nodes, as far as names say so. It implements ipam.Apart. The zero value knows
// none.
type networks struct {
	mu       sync.Mutex
	registry *dns.Registry  // guarded by mu; nil: not there yet
	subnets  []netip.Prefix // guarded by mu; replaced, never changed
	read     time.Time      // guarded by mu
}

// use makes the names of a registry count.
func (n *networks) use(r *dns.Registry) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.registry = r
}

// Subnets implements ipam.Apart. They are at most networksAge old.
func (n *networks) Subnets() []netip.Prefix {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.registry == nil || time.Since(n.read) < networksAge {
		return n.subnets
	}
	n.subnets, n.read = nil, time.Now()
	for _, e := range n.registry.List() {
		if s, ok := networkOf(e.Name, e.Addr); ok {
			n.subnets = append(n.subnets, s)
		}
	}
	return n.subnets
}

// networkOf returns the subnet of the network that a name at an address is for.
func networkOf(name string, addr netip.Addr) (subnet netip.Prefix, ok bool) {
	labels := strings.Split(name, ".")
	if len(labels) != 3 || labels[2] != networksLabel {
		return subnet, false
	}
	bits, err := strconv.Atoi(labels[1])
	if err != nil {
		return subnet, false
	}
	subnet = netip.PrefixFrom(addr, bits).Masked()
	return subnet, subnet.IsValid()
}
