package node

import (
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/hostnet"
)

// localAge is how old the subnets of containers may be: queries for names wait for them.
const localAge = time.Second

// localHost knows which clients are on this host: its own addresses, and those of containers behind its bridges. It implements dns.Host.
type localHost struct {
	mu      sync.Mutex
	subnets []netip.Prefix // guarded by mu
	read    time.Time      // guarded by mu
}

// IsLocal implements dns.Host. A client that is not known to be on this host is refused.
func (h *localHost) IsLocal(addr netip.Addr) bool {
	if local, err := hostnet.IsLocal(addr); err == nil && local {
		return true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.read) > localAge {
		subnets, err := hostnet.ContainerSubnets()
		if err != nil {
			return false
		}
		h.subnets, h.read = subnets, time.Now()
	}
	return slices.ContainsFunc(h.subnets, func(s netip.Prefix) bool { return s.Contains(addr.Unmap()) })
}
