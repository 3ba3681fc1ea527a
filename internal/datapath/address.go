package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/hostnet"
	"weft/internal/netdump"
)

// BridgeAddresses returns the addresses that the bridge has inside the overlay's ranges; none where there is no bridge.
func (d *Datapath) BridgeAddresses() ([]netip.Prefix, error) {
	link, err := netlink.LinkByName(d.settings.Bridge)
	if err != nil {
		if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
			return nil, nil
		}
		return nil, fmt.Errorf("datapath: looking up %s: %w", d.settings.Bridge, err)
	}
	addrs, err := netdump.Repeat(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("datapath: reading the addresses of %s: %w", d.settings.Bridge, err)
	}
	var inside []netip.Prefix
	for _, a := range addrs {
		if p, ok := hostnet.PrefixOf(a.IPNet); ok && d.settings.InRanges(p.Addr()) {
			inside = append(inside, p)
		}
	}
	return inside, nil
}

// AddBridgeAddress gives the bridge an address that it may have already.
func (d *Datapath) AddBridgeAddress(addr netip.Prefix) error {
	defer d.observeAddresses()
	err := d.changeAddress(addr, netlink.AddrReplace)
	if err == nil {
		d.had.Store(addr.Addr(), true)
	}
	return err
}

// RemoveBridgeAddress removes an address from the bridge; one that the bridge lacks is success. Its lease must have ended before: the
// reconciler adds an address that is leased again.
func (d *Datapath) RemoveBridgeAddress(addr netip.Prefix) error {
	defer d.observeAddresses()
	return d.changeAddress(addr, func(link netlink.Link, a *netlink.Addr) error {
		err := netlink.AddrDel(link, a)
		if errors.Is(err, unix.EADDRNOTAVAIL) {
			return nil // the kernel removes the other addresses of a subnet together with the first one
		}
		return err
	})
}

// changeAddress applies an operation of netlink to an address of the bridge.
func (d *Datapath) changeAddress(addr netip.Prefix, op func(netlink.Link, *netlink.Addr) error) error {
	d.hostMu.Lock()
	defer d.hostMu.Unlock()
	link, err := netlink.LinkByName(d.settings.Bridge)
	if err != nil {
		return fmt.Errorf("datapath: looking up %s: %w", d.settings.Bridge, err)
	}
	a, err := netlink.ParseAddr(addr.String())
	if err != nil {
		return fmt.Errorf("datapath: %w", err)
	}
	if addr.Addr().Is6() {
		a.Flags = unix.IFA_F_NODAD // the allocator guarantees that no other node has the address
	}
	if err := op(link, a); err != nil {
		return fmt.Errorf("datapath: changing %s on %s: %w", addr, d.settings.Bridge, err)
	}
	_ = d.guards.Apply(context.Background()) // a failure is a condition
	return nil
}

// restoreAddresses gives the bridge the addresses that are leased to it and that it lacks, as after a reboot.
func (d *Datapath) restoreAddresses() error {
	have, err := d.BridgeAddresses()
	if err != nil {
		return err
	}
	for _, want := range d.cfg.Addresses.HostAddresses() {
		if slices.ContainsFunc(have, func(h netip.Prefix) bool { return h.Addr() == want.Addr() }) {
			continue // with any prefix length
		}
		if err := d.AddBridgeAddress(want); err != nil {
			return err
		}
	}
	return nil
}

// observeAddresses passes the bridge's addresses to the observer.
func (d *Datapath) observeAddresses() {
	if d.cfg.Observer == nil {
		return
	}
	exposed, err := d.BridgeAddresses()
	if err != nil {
		d.log.Debug("cannot read the addresses of the bridge", "err", err)
		return
	}
	addrs := make([]netip.Addr, 0, len(exposed))
	for _, e := range exposed {
		addrs = append(addrs, e.Addr())
	}
	d.cfg.Observer.SetAddrs(addrs)
}

// hadAddress reports whether the bridge has had an address since the start. An address that it never had is new: its lease is made
// before the bridge gets it.
func (d *Datapath) hadAddress(addr netip.Addr) bool {
	_, had := d.had.Load(addr)
	return had
}
