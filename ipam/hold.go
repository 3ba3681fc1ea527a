package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weft/ipam/store"
)

// Hold records the addresses that are in use without a lease, by address, and replaces those of the last call. Those
// that this node owns are leased at once, to the given holder. The others are leased in the same step in which this
// node gets them, before they can be allocated here or granted to another node. An address that has a lease keeps it.
// Hold does not request addresses of other nodes: Claim does.
// See docs/adr/0024-pods-without-a-lease.md.
func (a *Allocator) Hold(inUse map[netip.Addr]string) error {
	return a.do(func() error {
		a.held = make(map[netip.Addr]string, len(inUse))
		for addr, holder := range inUse {
			a.held[addr.Unmap()] = holder
		}
		for _, p := range a.pools {
			leases := a.leaseHeld(p)
			if len(leases) == 0 {
				continue
			}
			if err := a.updateLeases(p, func(tx store.Tx) error { return putAll(tx, leases) }); err != nil {
				return err
			}
			a.notifyWaiters()
		}
		return nil
	})
}

// leaseHeld leases those of the held addresses that p owns and that are free; the caller makes the leases durable. The
// caller holds mu.
func (a *Allocator) leaseHeld(p *pool) (leases []store.Lease) {
	if len(a.held) == 0 || a.left {
		return nil
	}
	for _, addr := range slices.SortedFunc(maps.Keys(a.held), netip.Addr.Compare) {
		offset, ok := p.ring.Offset(addr)
		if !ok || p.space.Claim(offset) != nil { // another node owns it, or it is leased
			continue
		}
		l := Lease{Holder: a.held[addr], Addr: addr, Bits: p.prefix.Bits(), In: p.prefix, Since: time.Now().UTC().Round(0)}
		a.putLease(l)
		leases = append(leases, l.stored())
		a.cfg.Logger.Info("an address in use had no lease", "addr", addr, "owner", l.Holder)
	}
	return leases
}

// Reassign transfers all leases of one holder on this node to another in one step. It returns ErrUnknownOwner where the
// first has none.
func (a *Allocator) Reassign(from, to string) error {
	return a.do(func() error {
		leases := a.leases.of(from)
		if len(leases) == 0 {
			return fmt.Errorf("%w: %q holds no address on this node", ErrUnknownOwner, from)
		}
		stored := make([]store.Lease, len(leases))
		for i, l := range leases {
			a.leases.remove(l.Addr)
			l.Holder = to
			a.putLease(l)
			stored[i] = l.stored()
		}
		return a.update(func(tx store.Tx) error { return putAll(tx, stored) })
	})
}

func putAll(tx store.Tx, leases []store.Lease) error {
	for _, l := range leases {
		if err := tx.PutLease(l); err != nil {
			return err
		}
	}
	return nil
}
