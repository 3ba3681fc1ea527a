package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/ipam/ring"
	"weft/ipam/space"
	"weft/ipam/store"
)

// Allocate returns an address within in for holder. In is a range or a part of one; the zero Prefix is the first range.
// Further calls for the same holder and in return the same lease. The lease is durable before it is returned.
//
// It waits for the bootstrap and for replies of other nodes, until ctx ends or for 10 s. It returns an *ExhaustedError
// as soon as all nodes that can be reached have replied that they have no free address, and no other owner is awaited
// (Membership); ErrOutside; ErrLeft; or the error of ctx with what it was waiting for.
func (a *Allocator) Allocate(ctx context.Context, holder string, in netip.Prefix) (Lease, error) {
	if holder == "" {
		return Lease{}, errors.New("ipam: no holder for the address")
	}
	ctx, cancel := withPatience(ctx)
	defer cancel()
	s := search{what: fmt.Sprintf("no address for %q", holder)}
	for {
		var lease Lease
		var w *wait
		err := a.do(func() (err error) {
			lease, w, err = a.tryAllocate(holder, in, &s)
			return err
		})
		if err != nil || w == nil {
			return lease, err
		}
		if err := a.await(ctx, w, &s); err != nil {
			return Lease{}, err
		}
	}
}

// AllocateAll returns one address of each range for holder, in the order of Config.Ranges, like Allocate. Where one of
// them fails it returns the error, and keeps the new leases: the next call continues.
func (a *Allocator) AllocateAll(ctx context.Context, holder string) ([]Lease, error) {
	leases := make([]Lease, 0, len(a.cfg.Ranges))
	for _, cidr := range a.cfg.Ranges {
		l, err := a.Allocate(ctx, holder, cidr)
		if err != nil {
			return leases, err
		}
		leases = append(leases, l)
	}
	return leases, nil
}

// tryAllocate allocates from this node's own addresses, or returns what to wait for. The caller holds mu.
func (a *Allocator) tryAllocate(holder string, in netip.Prefix, s *search) (Lease, *wait, error) {
	p, in, span, err := a.resolve(in)
	if err != nil {
		return Lease{}, nil, err
	}
	if l, ok := a.leases.in(holder, in); ok {
		return l, nil, nil
	}
	if w, err := a.ready(p); w != nil || err != nil {
		return Lease{}, w, err
	}
	offset, ok := a.take(p, in, span)
	if !ok {
		w, err := a.requestSpace(p, in, span, s)
		return Lease{}, w, err
	}
	lease, err := a.lease(p, offset, holder, in)
	return lease, nil, err
}

// take takes the lowest free address of this node within span, the offsets of in. An address of the whole range is in none of the parts for
// which this node has leases: its holder would be a member of that subnet. As long as there are others, it is in none of cfg.Apart either.
// The caller holds mu.
func (a *Allocator) take(p *pool, in netip.Prefix, span ring.Span) (offset uint64, ok bool) {
	if in != p.prefix {
		return p.space.Allocate(space.Span(span))
	}
	own := a.leases.parts(p.prefix)
	for _, parts := range [][]netip.Prefix{append(slices.Clone(own), a.cfg.Apart.Subnets()...), own} {
		if offset, ok = p.space.AllocateOutside(p.spans(parts), space.Span(span)); ok {
			return offset, true
		}
	}
	return 0, false
}

// resolve returns the pool that in belongs to, in as it is recorded in leases, and the offsets that may be allocated
// there.
func (a *Allocator) resolve(in netip.Prefix) (*pool, netip.Prefix, ring.Span, error) {
	if in == (netip.Prefix{}) {
		in = a.pools[0].prefix
	}
	in = in.Masked()
	for _, p := range a.pools {
		if span, ok := p.ring.Hosts(in); ok {
			if span.Len() == 0 {
				return nil, in, span, fmt.Errorf("%w: %s has no address for a host", ErrOutside, in)
			}
			return p, in, span, nil
		}
	}
	return nil, in, ring.Span{}, fmt.Errorf("%w: %s is outside of %s", ErrOutside, in, join(a.cfg.Ranges))
}

// ready starts the bootstrap of p if it is needed, and returns what to wait for before p can be used. The caller holds
// mu.
func (a *Allocator) ready(p *pool) (*wait, error) {
	if a.left {
		return nil, ErrLeft
	}
	if !p.ring.Bootstrapped() && !p.requested {
		p.requested = true
		a.wake.Set()
		if err := a.propose(p); err != nil {
			return nil, err
		}
	}
	if !p.ring.Bootstrapped() {
		return a.waitForChange(a.waitingFor(p)), nil
	}
	return nil, nil
}

// lease records a lease of offset, which is taken in the space already, and makes it durable. The caller holds mu.
func (a *Allocator) lease(p *pool, offset uint64, holder string, in netip.Prefix) (Lease, error) {
	lease := Lease{
		Holder: holder,
		Addr:   p.ring.Addr(offset),
		Bits:   in.Bits(),
		In:     in,
		Since:  time.Now().UTC().Round(0),
	}
	a.putLease(lease)
	if err := a.updateLeases(p, func(tx store.Tx) error { return tx.PutLease(lease.stored()) }); err != nil {
		return Lease{}, err
	}
	return lease, nil
}

// updateLeases makes a change of leases durable, together with the change of the ring that follows from it, which it
// puts in the outbox. The caller holds mu.
func (a *Allocator) updateLeases(p *pool, f func(store.Tx) error) error {
	delta := p.report(false)
	err := a.update(func(tx store.Tx) error {
		if delta.Len() > 0 {
			if err := p.saveRing(tx); err != nil {
				return err
			}
		}
		return f(tx)
	})
	if err != nil {
		return err
	}
	a.out.broadcast(ringDeltas(delta))
	return nil
}

// Claim leases exactly addr to holder. Where another node owns it, Claim requests it from that node. It returns
// ErrLeased where another holder has the address, an *UnreachableError where its owner cannot be reached, ErrExhausted
// where its owner does not grant it, ErrOutside, ErrLeft, or the error of ctx with what it was waiting for.
func (a *Allocator) Claim(ctx context.Context, holder string, addr netip.Addr) (Lease, error) {
	if holder == "" {
		return Lease{}, errors.New("ipam: no holder for the address")
	}
	ctx, cancel := withPatience(ctx)
	defer cancel()
	s := search{what: fmt.Sprintf("%s is not claimed for %q", addr, holder), addr: addr.Unmap()}
	for {
		var lease Lease
		var w *wait
		err := a.do(func() (err error) {
			lease, w, err = a.tryClaim(holder, addr.Unmap(), &s)
			return err
		})
		if err != nil || w == nil {
			return lease, err
		}
		if err := a.await(ctx, w, &s); err != nil {
			return Lease{}, err
		}
	}
}

// tryClaim claims addr if this node owns it, or returns what to wait for. The caller holds mu.
func (a *Allocator) tryClaim(holder string, addr netip.Addr, s *search) (Lease, *wait, error) {
	p, offset, ok := a.poolOf(addr)
	switch {
	case !ok:
		return Lease{}, nil, fmt.Errorf("%w: %s is outside of %s", ErrOutside, addr, join(a.cfg.Ranges))
	case p.ring.Usable().Contains(offset):
	case offset == 0:
		return Lease{}, nil, &reservedError{addr, fmt.Sprintf("the address of the network %s itself", p.prefix)}
	default:
		return Lease{}, nil, &reservedError{addr, fmt.Sprintf("the broadcast address of %s", p.prefix)}
	}
	if l, ok := a.leases.byAddr[addr]; ok && l.Holder == holder {
		return l, nil, nil
	} else if ok {
		return Lease{}, nil, &LeasedError{Addr: addr, Holder: l.Holder}
	}
	if w, err := a.ready(p); w != nil || err != nil {
		return Lease{}, w, err
	}
	if !p.space.Owns(offset) {
		w, err := a.requestAddr(p, offset, s)
		return Lease{}, w, err
	}
	if err := p.space.Claim(offset); err != nil {
		return Lease{}, nil, fmt.Errorf("ipam: %s: %w", addr, err)
	}
	lease, err := a.lease(p, offset, holder, p.prefix)
	return lease, nil, err
}

// Release ends holder's lease of addr, or all its leases on this node where addr is the zero Addr. It returns
// ErrUnknownOwner where holder has no such lease.
func (a *Allocator) Release(holder string, addr netip.Addr) error {
	return a.do(func() error {
		leases := a.leases.of(holder)
		if addr.IsValid() {
			l, ok := a.leases.byAddr[addr.Unmap()]
			if !ok || l.Holder != holder {
				return fmt.Errorf("%w: %q does not hold %s on this node", ErrUnknownOwner, holder, addr)
			}
			leases = []Lease{l}
		}
		if len(leases) == 0 {
			return fmt.Errorf("%w: %q holds no address on this node", ErrUnknownOwner, holder)
		}
		for _, p := range a.pools {
			if err := a.release(p, leases); err != nil {
				return err
			}
		}
		return nil
	})
}

// release ends those of leases that are of p, in one write. The caller holds mu.
func (a *Allocator) release(p *pool, leases []Lease) error {
	var addrs []netip.Addr
	for _, l := range leases {
		offset, ok := p.ring.Offset(l.Addr)
		if !ok {
			continue
		}
		if err := p.space.Release(offset); err != nil {
			return fmt.Errorf("ipam: %s: %w", l.Addr, err)
		}
		a.leases.remove(l.Addr)
		addrs = append(addrs, l.Addr)
	}
	if len(addrs) == 0 {
		return nil
	}
	return a.updateLeases(p, func(tx store.Tx) error { return deleteAll(tx, addrs) })
}

// Lookup returns the leases of holder on this node, sorted by address.
func (a *Allocator) Lookup(holder string) (leases []Lease) {
	a.view(func() { leases = a.leases.of(holder) })
	return leases
}

// Leases returns all leases of this node, sorted by holder, then by address.
func (a *Allocator) Leases() (leases []Lease) {
	a.view(func() { leases = a.leases.all() })
	return leases
}
