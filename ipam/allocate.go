package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"weft/ipam/ring"
	"weft/ipam/space"
	"weft/ipam/store"
)

// Allocate gives owner an address within in, a range or a part of one; the zero Prefix is the first range. Asked again for
// the same owner and in, it returns the same lease. The lease is on disk before it is returned.
//
// It waits for the founding and for other nodes' answers, until ctx ends or for 10 s. It returns ErrExhausted, with who owns
// what, as soon as all nodes that can be reached have said that they have nothing free; ErrOutside, ErrLeft; or the error of
// ctx with what it was waiting for.
func (a *Allocator) Allocate(ctx context.Context, owner string, in netip.Prefix) (Lease, error) {
	if owner == "" {
		return Lease{}, errors.New("ipam: an address for no owner")
	}
	ctx, cancel := withPatience(ctx)
	defer cancel()
	s := search{what: fmt.Sprintf("no address for %q", owner)}
	for {
		var lease Lease
		var w *wait
		err := a.do(func() (err error) {
			lease, w, err = a.tryAllocate(owner, in, &s)
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

// AllocateAll gives owner one address of each range, in the order of Config.Ranges, as Allocate does. Where one of them fails
// it returns the error, and what it has newly allocated stays: asked again, it goes on from there.
func (a *Allocator) AllocateAll(ctx context.Context, owner string) ([]Lease, error) {
	leases := make([]Lease, 0, len(a.cfg.Ranges))
	for _, cidr := range a.cfg.Ranges {
		l, err := a.Allocate(ctx, owner, cidr)
		if err != nil {
			return leases, err
		}
		leases = append(leases, l)
	}
	return leases, nil
}

// tryAllocate allocates from what this node owns, or returns what to wait for.
func (a *Allocator) tryAllocate(owner string, in netip.Prefix, s *search) (Lease, *wait, error) {
	p, in, span, err := a.resolve(in)
	if err != nil {
		return Lease{}, nil, err
	}
	if l, ok := a.leases.in(owner, in); ok {
		return l, nil, nil
	}
	if w, err := a.ready(p); w != nil || err != nil {
		return Lease{}, w, err
	}
	offset, ok := p.space.Allocate(space.Span(span))
	if !ok {
		w, err := a.seek(p, in, span, s)
		return Lease{}, w, err
	}
	lease, err := a.lease(p, offset, owner, in)
	return lease, nil, err
}

// resolve returns the pool that in belongs to, in as leases name it, and the offsets to give out there.
func (a *Allocator) resolve(in netip.Prefix) (*pool, netip.Prefix, ring.Span, error) {
	if in == (netip.Prefix{}) {
		in = a.pools[0].prefix
	}
	in = in.Masked()
	for _, p := range a.pools {
		if span, ok := p.ring.Hosts(in); ok {
			if span.Len() == 0 {
				return nil, in, span, fmt.Errorf("%w: %s has no address that may be given out", ErrOutside, in)
			}
			return p, in, span, nil
		}
	}
	return nil, in, ring.Span{}, fmt.Errorf("%w: %s is not within %s", ErrOutside, in, join(a.cfg.Ranges))
}

// ready returns what to wait for before p can be used, and starts what leads there.
func (a *Allocator) ready(p *pool) (*wait, error) {
	if a.left {
		return nil, ErrLeft
	}
	if !p.ring.Bootstrapped() && !p.wanted {
		p.wanted = true
		a.poke()
		if err := a.propose(p); err != nil {
			return nil, err
		}
	}
	if !p.ring.Bootstrapped() {
		return a.waitFor(a.waitingFor(p)), nil
	}
	return nil, nil
}

// lease notes and writes a lease of offset, which is taken in the space already.
func (a *Allocator) lease(p *pool, offset uint64, owner string, in netip.Prefix) (Lease, error) {
	lease := Lease{
		Holder: owner,
		Addr:   p.ring.Addr(offset),
		Bits:   in.Bits(),
		In:     in,
		Since:  a.cfg.Now().UTC().Round(0),
	}
	a.leases.put(lease)
	if err := a.write(p, func(tx store.Tx) error { return tx.PutLease(lease.stored()) }); err != nil {
		return Lease{}, err
	}
	return lease, nil
}

// write makes a change of leases durable, with what it changes in the ring, and tells the others of that.
func (a *Allocator) write(p *pool, f func(store.Tx) error) error {
	delta := p.report(false)
	err := a.commit(func(tx store.Tx) error {
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
	a.broadcast(ringDeltas(delta))
	return nil
}

// Claim gives owner the very address addr. Where another node owns it, that node is asked for it. It returns ErrLeased where
// another holds the address, ErrUnreachable where its owner cannot be asked, ErrOutside, ErrLeft, or the error of ctx with
// what it was waiting for.
func (a *Allocator) Claim(ctx context.Context, owner string, addr netip.Addr) (Lease, error) {
	if owner == "" {
		return Lease{}, errors.New("ipam: an address for no owner")
	}
	ctx, cancel := withPatience(ctx)
	defer cancel()
	s := search{what: fmt.Sprintf("%s is not claimed for %q", addr, owner)}
	for {
		var lease Lease
		var w *wait
		err := a.do(func() (err error) {
			lease, w, err = a.tryClaim(owner, addr.Unmap(), &s)
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

// tryClaim claims addr if this node owns it, or returns what to wait for.
func (a *Allocator) tryClaim(owner string, addr netip.Addr, s *search) (Lease, *wait, error) {
	p, offset, ok := a.poolOf(addr)
	if !ok || !p.ring.Usable().Contains(offset) {
		return Lease{}, nil, fmt.Errorf("%w: %s is not an address of %s that may be given out", ErrOutside, addr, join(a.cfg.Ranges))
	}
	if l, ok := a.leases.byAddr[addr]; ok && l.Holder == owner {
		return l, nil, nil
	} else if ok {
		return Lease{}, nil, fmt.Errorf("%w: %s is leased by %q", ErrLeased, addr, l.Holder)
	}
	if w, err := a.ready(p); w != nil || err != nil {
		return Lease{}, w, err
	}
	if !p.space.Owns(offset) {
		w, err := a.seekAddr(p, offset, s)
		return Lease{}, w, err
	}
	if err := p.space.Claim(offset); err != nil {
		return Lease{}, nil, fmt.Errorf("ipam: %s: %w", addr, err)
	}
	lease, err := a.lease(p, offset, owner, p.prefix)
	return lease, nil, err
}

// Release takes addr back from owner, or all that it holds on this node where addr is the zero Addr. It returns
// ErrUnknownOwner where owner does not hold addr, or nothing at all: then there is nothing to do.
func (a *Allocator) Release(owner string, addr netip.Addr) error {
	return a.do(func() error {
		leases := a.leases.of(owner)
		if addr.IsValid() {
			l, ok := a.leases.byAddr[addr.Unmap()]
			if !ok || l.Holder != owner {
				return fmt.Errorf("%w: %q does not hold %s on this node", ErrUnknownOwner, owner, addr)
			}
			leases = []Lease{l}
		}
		if len(leases) == 0 {
			return fmt.Errorf("%w: %q holds no address on this node", ErrUnknownOwner, owner)
		}
		for _, p := range a.pools {
			if err := a.release(p, leases); err != nil {
				return err
			}
		}
		return nil
	})
}

// release takes back those of leases that are of p, in one write.
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
	return a.write(p, func(tx store.Tx) error { return deleteAll(tx, addrs) })
}

// Lookup returns what owner holds on this node, sorted by address.
func (a *Allocator) Lookup(owner string) (leases []Lease) {
	a.view(func() { leases = a.leases.of(owner) })
	return leases
}

// Leases returns all leases of this node, sorted by owner, then by address.
func (a *Allocator) Leases() (leases []Lease) {
	a.view(func() { leases = a.leases.all() })
	return leases
}
