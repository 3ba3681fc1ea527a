package daemon

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/api"
	"weft/ipam"
)

// exposeOwner holds the leases of the bridge's own addresses. Pods of this node have them as gateway.
const exposeOwner = reservedPrefix + "expose"

func (d *Daemon) handleExpose(r *http.Request, in api.ExposeRequest) ([]api.Lease, error) {
	p := d.plane.Load()
	if p == nil {
		return nil, errStarting()
	}
	if in.CIDR == api.Auto {
		leases, err := p.exposeAuto(r.Context())
		return leasesOrProblem(leases, err)
	}
	addr, err := d.parseAddress(in.CIDR)
	if err != nil {
		return nil, err
	}
	lease, err := d.ipam.Claim(r.Context(), exposeOwner, addr.Addr())
	if err != nil {
		return nil, ipamProblem(err)
	}
	lease.Bits = addr.Bits()
	if err := setAddress(d.cfg.Bridge, addr, netlink.AddrReplace); err != nil {
		return nil, errors.Join(err, d.ipam.Release(exposeOwner, addr.Addr()))
	}
	return leaseDocs([]ipam.Lease{lease}), nil
}

func (d *Daemon) handleHide(*http.Request, none) (none, error) {
	p := d.plane.Load()
	if p == nil {
		return none{}, errStarting()
	}
	return none{}, p.hide()
}

// exposeAuto gives the bridge an address of each range, the same as before where it has one.
func (p *plane) exposeAuto(ctx context.Context) ([]ipam.Lease, error) {
	leases, err := p.d.ipam.AllocateAll(ctx, exposeOwner)
	if err != nil {
		return nil, err
	}
	if err := p.ensureExposed(leases); err != nil {
		return nil, err
	}
	p.serveNames()
	return leases, nil
}

// restoreExposed gives the bridge all the addresses that are leased to it, as after a reboot.
func (p *plane) restoreExposed() error { return p.ensureExposed(p.d.ipam.Lookup(exposeOwner)) }

// ensureExposed adds those of leases that the bridge does not have, whatever the length there.
func (p *plane) ensureExposed(leases []ipam.Lease) error {
	have, err := p.d.exposed()
	if err != nil {
		return err
	}
	for _, l := range leases {
		if slices.ContainsFunc(have, func(h netip.Prefix) bool { return h.Addr() == l.Addr }) {
			continue
		}
		if err := setAddress(p.d.cfg.Bridge, l.Prefix(), netlink.AddrReplace); err != nil {
			return err
		}
	}
	return nil
}

// hide takes the bridge's addresses and their leases away. A bridge that has none is fine.
func (p *plane) hide() error {
	defer p.d.orphans.look() // which must not hold these any more
	p.d.orphans.mu.Lock()
	defer p.d.orphans.mu.Unlock()
	have, err := p.d.exposed()
	errs := []error{err}
	for _, a := range have {
		errs = append(errs, setAddress(p.d.cfg.Bridge, a, netlink.AddrDel))
	}
	if err := p.d.ipam.Release(exposeOwner, netip.Addr{}); err != nil && !errors.Is(err, ipam.ErrUnknownOwner) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// exposed returns the addresses that the bridge has inside the overlay's ranges.
func (d *Daemon) exposed() ([]netip.Prefix, error) {
	link, err := netlink.LinkByName(d.cfg.Bridge)
	if err != nil {
		if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
			return nil, nil
		}
		return nil, fmt.Errorf("daemon: looking at %s: %w", d.cfg.Bridge, err)
	}
	addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("daemon: reading the addresses of %s: %w", d.cfg.Bridge, err)
	}
	var inside []netip.Prefix
	for _, a := range addrs {
		if p, ok := prefixOf(a.IPNet); ok && d.cfg.inRanges(p.Addr()) {
			inside = append(inside, p)
		}
	}
	return inside, nil
}

// setAddress adds addr to a link, or deletes it, as op says.
func setAddress(name string, addr netip.Prefix, op func(netlink.Link, *netlink.Addr) error) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("daemon: looking at %s: %w", name, err)
	}
	a, err := netlink.ParseAddr(addr.String())
	if err != nil {
		return fmt.Errorf("daemon: %w", err)
	}
	if addr.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // ipam has seen to it that nobody else has the address
	}
	if err := op(link, a); err != nil {
		return fmt.Errorf("daemon: changing %s on %s: %w", addr, name, err)
	}
	return nil
}

// parseAddress reads "IP" or "IP/LEN" inside the overlay's ranges; without a length it is the range's.
func (d *Daemon) parseAddress(s string) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil {
		addr, addrErr := netip.ParseAddr(s)
		if addrErr != nil {
			return netip.Prefix{}, problem(api.KindInvalid, "Write auto, an address, or an address and a prefix length.", "%q is no address", s)
		}
		p = netip.PrefixFrom(addr, 0)
	}
	for _, r := range d.cfg.Ranges {
		if !r.Contains(p.Addr()) {
			continue
		}
		if p.Bits() == 0 {
			return netip.PrefixFrom(p.Addr(), r.Bits()), nil
		}
		if p.Bits() < r.Bits() {
			return netip.Prefix{}, problem(api.KindInvalid, "Make the prefix at least as long as the range's.", "%s reaches beyond the range %s", p, r)
		}
		return p, nil
	}
	return netip.Prefix{}, problem(api.KindInvalid, "The ranges of the overlay are in \"weft ipam\".", "%s is in none of the overlay's ranges", p.Addr())
}
