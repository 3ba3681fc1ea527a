package ipam

import (
	"net/netip"
	"time"

	"weft/internal/peer"
	"weft/ipam/ring"
)

// ownersAge is how old what OwnerOf knows may be.
const ownersAge = 500 * time.Millisecond

// owners is a copy of the rings as they were.
type owners struct {
	rings []*ring.Ring
	at    time.Time
}

// OwnerOf returns which node gives out an address, as this one knew at most half a second ago, unless the Allocator was
// busy since. It never waits.
func (a *Allocator) OwnerOf(addr netip.Addr) (peer.ID, bool) {
	o := a.owned.Load()
	if o == nil || a.cfg.Now().Sub(o.at) >= ownersAge {
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

// copyOwners takes a new copy, if it can be had without waiting, else the old one stays.
func (a *Allocator) copyOwners(old *owners) *owners {
	if !a.mu.TryLock() {
		return old
	}
	defer a.mu.Unlock()
	o := &owners{at: a.cfg.Now()}
	for _, p := range a.pools {
		o.rings = append(o.rings, p.ring.Clone())
	}
	a.owned.Store(o)
	return o
}
