package ipam

import (
	"net/netip"
	"time"

	"weft/internal/peer"
	"weft/ipam/ring"
)

// ownersAge is how old the answer of OwnerOf may be.
const ownersAge = 500 * time.Millisecond

// owners is a copy of the rings at a time.
type owners struct {
	rings []*ring.Ring
	at    time.Time
}

// OwnerOf returns the node that owns an address, as this node knew it at most half a second ago, or longer while the
// Allocator is busy. It takes no lock that it would have to wait for.
func (a *Allocator) OwnerOf(addr netip.Addr) (peer.ID, bool) {
	o := a.owned.Load()
	if o == nil || time.Since(o.at) >= ownersAge {
		o = a.copyOwners(o)
	}
	if o == nil {
		return peer.ID{}, false
	}
	for _, r := range o.rings {
		if offset, ok := r.Offset(addr); ok {
			return r.Owner(offset)
		}
	}
	return peer.ID{}, false
}

// copyOwners returns a new copy, or the old one where mu is locked.
func (a *Allocator) copyOwners(old *owners) *owners {
	if !a.mu.TryLock() {
		return old
	}
	defer a.mu.Unlock()
	o := &owners{at: time.Now()}
	for _, p := range a.pools {
		o.rings = append(o.rings, p.ring.Clone())
	}
	a.owned.Store(o)
	return o
}
