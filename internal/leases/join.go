package leases

import (
	"context"
	"errors"
	"net/netip"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/hint"
	"weft/internal/leases/holder"
	"weft/ipam"
)

// Join leases what a namespace needs to join the overlay and returns it, without touching the namespace. Asking again for the
// same holder returns the same addresses.
func (m *Manager) Join(ctx context.Context, in api.JoinRequest) (api.Join, error) {
	if !m.cfg.Host.Up() {
		return api.Join{}, errStarting()
	}
	h, err := clientHolder(in.Owner)
	if err != nil {
		return api.Join{}, err
	}
	if err := m.adopt(h); err != nil {
		return api.Join{}, err
	}
	return m.join(ctx, h, in.IPs, nil)
}

// join leases addresses to h: one in each of subnets, if there are some; else each of ips is an address with or without a prefix length,
// or api.Auto; none means Auto. If it fails, it releases what it leased.
func (m *Manager) join(ctx context.Context, h holder.Holder, ips []string, subnets []netip.Prefix) (_ api.Join, err error) {
	before := m.lookup(h)
	defer func() {
		if err != nil {
			err = errors.Join(err, m.releaseNew(h, before))
		}
	}()
	if _, err := m.exposeAuto(ctx); err != nil {
		return api.Join{}, Explain(err)
	}
	addrs, err := m.leaseAll(ctx, h, ips, subnets)
	if err != nil {
		return api.Join{}, err
	}
	answer := api.Join{Bridge: m.cfg.Bridge, MTU: m.cfg.Host.MTU(), DNSDomain: m.cfg.DNSDomain, DNS: m.cfg.DNS}
	for _, a := range addrs {
		doc := api.Address{Address: a, MAC: ether.FromIP(a.Addr())}
		if doc.Gateway, err = m.gatewayOf(ctx, a); err != nil {
			return api.Join{}, Explain(err)
		}
		answer.Addresses = append(answer.Addresses, doc)
	}
	return answer, nil
}

// leaseAll leases the addresses that join is for.
func (m *Manager) leaseAll(ctx context.Context, h holder.Holder, ips []string, subnets []netip.Prefix) (all []netip.Prefix, err error) {
	for _, s := range subnets {
		l, err := m.cfg.Allocator.Allocate(ctx, h.String(), s)
		if err != nil {
			return nil, Explain(err)
		}
		all = append(all, l.Prefix())
	}
	if len(subnets) > 0 {
		return all, nil
	}
	if len(ips) == 0 {
		ips = []string{api.Auto}
	}
	for _, ip := range ips {
		addrs, err := m.lease(ctx, h, ip)
		if err != nil {
			return nil, err
		}
		all = append(all, addrs...)
	}
	return all, nil
}

// releaseNew ends the leases of h that are not among those before.
func (m *Manager) releaseNew(h holder.Holder, before []ipam.Lease) error {
	var errs []error
	for _, l := range m.lookup(h) {
		if !leasedTo(before, l.Addr) {
			errs = append(errs, m.releaseIfLeased(h, l.Addr))
		}
	}
	return errors.Join(errs...)
}

// lease leases one element of a request's addresses.
func (m *Manager) lease(ctx context.Context, h holder.Holder, ip string) ([]netip.Prefix, error) {
	if ip == api.Auto {
		leases, err := m.cfg.Allocator.AllocateAll(ctx, h.String())
		if err != nil {
			return nil, Explain(err)
		}
		addrs := make([]netip.Prefix, 0, len(leases))
		for _, l := range leases {
			addrs = append(addrs, l.Prefix())
		}
		return addrs, nil
	}
	addr, err := m.parseAddress(ip)
	if err != nil {
		return nil, err
	}
	if _, err := m.cfg.Allocator.Claim(ctx, h.String(), addr.Addr()); err != nil {
		return nil, Explain(err)
	}
	return []netip.Prefix{addr}, nil
}

// parseAddress reads "IP" or "IP/LEN" inside the overlay's ranges; without a length it is the range's.
func (m *Manager) parseAddress(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, addrErr := netip.ParseAddr(s)
		if addrErr != nil {
			return netip.Prefix{}, hint.New(hint.Invalid, "Write auto, an address, or an address and a prefix length.", "%q is not an address", s)
		}
		p = netip.PrefixFrom(addr, 0)
	}
	r := m.rangeOf(p.Addr())
	switch {
	case !r.IsValid():
		return netip.Prefix{}, hint.New(hint.Invalid, "\"weft ipam\" shows the ranges of the overlay.",
			"%s is in none of the overlay's ranges", p.Addr())
	case p.Bits() == 0:
		return netip.PrefixFrom(p.Addr(), r.Bits()), nil
	case p.Bits() < r.Bits():
		return netip.Prefix{}, hint.New(hint.Invalid, "Make the prefix at least as long as the range's.", "%s exceeds the range %s", p, r)
	}
	return p, nil
}
