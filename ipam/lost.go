package ipam

import (
	"net/netip"
	"slices"
	"strings"

	"weft/internal/peer"
)

// maxLost bounds how many lost leases are kept.
const maxLost = 64

// LostLease is a lease that ended because another node owns its address now: this node's address space was reclaimed while it was
// away, or a conflict was resolved for the other node.
type LostLease struct {
	Lease
	Owner peer.ID // the node that owned the address when the lease ended
}

// lostLeases are the leases that were lost and not replaced yet, the latest last. The zero value is empty. It is guarded by the
// Allocator's mu.
type lostLeases []LostLease

// add records a lost lease.
func (l *lostLeases) add(lease LostLease) {
	list := append(*l, lease)
	*l = list[max(len(list)-maxLost, 0):]
}

// replace drops the lost leases that a new one makes good: the holder has an address of the same range again, or the address is leased
// here again.
func (l *lostLeases) replace(by Lease) {
	*l = slices.DeleteFunc(*l, func(old LostLease) bool {
		return old.Addr == by.Addr || old.Holder == by.Holder && old.Addr.Is4() == by.Addr.Is4()
	})
}

// Lost returns the leases of this node that were lost since its start, by holder and address, until the holder has an address again, the
// address is leased here again, or Dismiss.
func (a *Allocator) Lost() (lost []LostLease) {
	a.view(func() { lost = slices.Clone(a.lost) })
	slices.SortFunc(lost, func(x, y LostLease) int {
		if c := strings.Compare(x.Holder, y.Holder); c != 0 {
			return c
		}
		return x.Addr.Compare(y.Addr)
	})
	return lost
}

// Dismiss drops the lost leases of a holder that needs no address any more.
func (a *Allocator) Dismiss(holder string) {
	a.view(func() { a.lost = slices.DeleteFunc(a.lost, func(l LostLease) bool { return l.Holder == holder }) })
}

// lose ends the lease of an address that another node owns now. The caller holds mu.
func (a *Allocator) lose(p *pool, addr netip.Addr) {
	lease := a.leases.byAddr[addr]
	var owner peer.ID
	if offset, ok := p.ring.Offset(addr); ok {
		owner, _ = p.ring.Owner(offset)
	}
	a.cfg.Logger.Error("lease lost with its addresses", "addr", addr, "owner", lease.Holder)
	a.leases.remove(addr)
	a.lost.add(LostLease{Lease: lease, Owner: owner})
}

// putLease records a lease. The caller holds mu.
func (a *Allocator) putLease(l Lease) {
	a.leases.put(l)
	a.lost.replace(l)
}
