package ipam

import (
	"net/netip"

	"weft/ipam/ring"
)

// Foundings returns how the ranges that are divided were divided first, by range.
func (a *Allocator) Foundings() map[netip.Prefix]ring.Founding {
	found := make(map[netip.Prefix]ring.Founding)
	a.view(func() {
		for _, p := range a.pools {
			if p.ring.Founded() {
				found[p.prefix] = p.ring.Founding()
			}
		}
	})
	return found
}

// founded counts the ranges that are divided; mu is held.
func (a *Allocator) founded() (n int) {
	for _, p := range a.pools {
		if p.ring.Founded() {
			n++
		}
	}
	return n
}
