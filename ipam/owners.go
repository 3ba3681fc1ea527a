package ipam

import (
	"net/netip"
	"sync"
	"time"

	"go4.org/netipx"

	"weft/internal/peer"
	"weft/ipam/ring"
)

// ownersAge is how old the answer of OwnerOf may be.
const ownersAge = 500 * time.Millisecond

// owners is a copy of the rings at a time.
type owners struct {
	rings  []*ring.Ring
	at     time.Time
	shares func() map[peer.ID][]netip.Prefix // computed once
}

// OwnerOf returns the node that owns an address, as this node knew it at most half a second ago, or longer while the
// Allocator is busy. It takes no lock that it would have to wait for.
func (a *Allocator) OwnerOf(addr netip.Addr) (peer.ID, bool) {
	o := a.owners()
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

// Shares returns what each node owns, in as few prefixes as possible, as old as the answers of OwnerOf. The caller must not change it.
func (a *Allocator) Shares() map[peer.ID][]netip.Prefix {
	o := a.owners()
	if o == nil {
		return nil
	}
	return o.shares()
}

// owners returns the copy of the rings, anew if it is too old; nil where there is none yet.
func (a *Allocator) owners() *owners {
	o := a.owned.Load()
	if o == nil || time.Since(o.at) >= ownersAge {
		return a.copyOwners(o)
	}
	return o
}

// sharesOf returns the prefixes of all owners.
func sharesOf(rings []*ring.Ring) map[peer.ID][]netip.Prefix {
	shares := map[peer.ID][]netip.Prefix{}
	for _, r := range rings {
		for _, total := range r.Totals() {
			for _, s := range r.Owned(total.Owner) {
				if s.Len() > 0 {
					shares[total.Owner] = netipx.IPRangeFrom(r.Addr(s.Start), r.Addr(s.End-1)).AppendPrefixes(shares[total.Owner])
				}
			}
		}
	}
	return shares
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
	o.shares = sync.OnceValue(func() map[peer.ID][]netip.Prefix { return sharesOf(o.rings) })
	a.owned.Store(o)
	return o
}
