package ipam

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"weft/ipam/store"
)

// Hold names addresses that are in use without a lease, by owner, in place of those it named before. Those that this node owns
// are leased at once, the others in the same step in which this node gets them: before anybody else can be given them, whether
// on this node or by it. An address that has a lease keeps it. What another node owns Hold does not ask for: Claim does.
func (a *Allocator) Hold(inUse map[netip.Addr]string) error {
	return a.do(func() error {
		a.held = make(map[netip.Addr]string, len(inUse))
		for addr, owner := range inUse {
			a.held[addr.Unmap()] = owner
		}
		for _, p := range a.pools {
			leases := a.leaseHeld(p)
			if len(leases) == 0 {
				continue
			}
			if err := a.write(p, func(tx store.Tx) error { return putAll(tx, leases) }); err != nil {
				return err
			}
			a.notify()
		}
		return nil
	})
}

// leaseHeld leases those of the held addresses that p owns and nobody has, for the caller to write. The caller holds mu.
func (a *Allocator) leaseHeld(p *pool) (leases []store.Lease) {
	if len(a.held) == 0 || a.left {
		return nil
	}
	for _, addr := range slices.SortedFunc(maps.Keys(a.held), netip.Addr.Compare) {
		offset, ok := p.ring.Offset(addr)
		if !ok || p.space.Claim(offset) != nil { // another node's, or leased
			continue
		}
		l := Lease{Holder: a.held[addr], Addr: addr, Bits: p.prefix.Bits(), In: p.prefix, Since: a.cfg.Now().UTC().Round(0)}
		a.leases.put(l)
		leases = append(leases, l.stored())
		a.cfg.Logger.Info("ipam: an address in use had no lease", "addr", addr, "owner", l.Holder)
	}
	return leases
}

// Reassign makes the leases of one owner another's, without a moment in which they are nobody's. It returns ErrUnknownOwner where
// the first holds nothing on this node.
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
			a.leases.put(l)
			stored[i] = l.stored()
		}
		return a.commit(func(tx store.Tx) error { return putAll(tx, stored) })
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
