package ipam

import (
	"net/netip"

	"weft/ipam/ring"
)

// Foundings returns how the ranges that are divided were divided first, by range.
func (a *Allocator) ClusterIDs() map[netip.Prefix]ring.ClusterID {
	found := make(map[netip.Prefix]ring.ClusterID)
	a.view(func() {
		for _, p := range a.pools {
			if p.ring.Bootstrapped() {
				found[p.prefix] = p.ring.ClusterID()
			}
		}
	})
	return found
}

// founded counts the ranges that are divided; mu is held.
func (a *Allocator) founded() (n int) {
	for _, p := range a.pools {
		if p.ring.Bootstrapped() {
			n++
		}
	}
	return n
}
