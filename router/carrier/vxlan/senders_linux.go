package vxlan

import (
	"context"
	"errors"
	"fmt"
	"net"

	"weft/internal/nftsum"
)

// The methods of this file are about the senders that the device accepts. Two filters decide: the nftables table, which counts
// and also keeps pods out, and the gate, which other programs cannot remove.

// setFilter makes s the only senders of both filters. filterMu is held, except in Open.
func (d *Device) setFilter(ctx context.Context, s senders) error {
	if d.filter == nil {
		return net.ErrClosed
	}
	d.allowed = s
	gateErr := d.setGate()
	err := d.inside(func() (err error) {
		if err = d.filter.apply(ctx, s); err == nil {
			d.filterSum, err = nftsum.Of(nftsum.Inet, tableName(d.cfg.Name))
		}
		return err
	})
	if err != nil {
		d.filterSum = nftsum.Sum{} // of no table: it is not intact
	}
	return errors.Join(gateErr, err)
}

// setGate makes the allowed addresses the only senders of the gate, and excludes the bridge as it is now. filterMu is held, except
// in Open.
func (d *Device) setGate() error {
	if d.gate == nil {
		return nil
	}
	bridge := 0
	d.mu.Lock()
	if !d.closed {
		if link, err := d.nl.LinkByName(d.cfg.Bridge); err == nil {
			bridge = link.Attrs().Index
		}
	}
	d.mu.Unlock()
	return errors.Join(d.gate.allow(d.allowed.list()), d.gate.exclude(bridge))
}

// list returns the senders as the gate has them.
func (s senders) list() []sender {
	list := make([]sender, 0, len(s.peers)+len(s.pairs))
	for _, addr := range s.peers {
		list = append(list, sender{addr: addr})
	}
	for _, p := range s.pairs {
		list = append(list, sender{p.Addr(), p.Port()})
	}
	return list
}

// FilterIntact reports whether the nftables table is as this device set it last. It takes less than a millisecond. After Close
// the error is net.ErrClosed.
func (d *Device) FilterIntact() (bool, error) {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	if d.filter == nil {
		return false, net.ErrClosed
	}
	return nftsum.Unchanged(d.filterSum, func() (sum nftsum.Sum, err error) {
		err = d.inside(func() (err error) {
			sum, err = nftsum.Of(nftsum.Inet, tableName(d.cfg.Name))
			return err
		})
		return sum, err
	})
}

// RestoreFilter sets the nftables table again after another program has changed it. Where there is no gate, the device is down
// meanwhile, and stays down if that fails: it must not deliver frames of any sender.
func (d *Device) RestoreFilter(ctx context.Context) error {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	if d.gate != nil {
		return d.setFilter(ctx, d.allowed)
	}
	if err := d.shutDown(); err != nil {
		return err
	}
	if err := d.setFilter(ctx, d.allowed); err != nil {
		return err
	}
	d.shut = false
	return d.setUp(true)
}

// Shut brings the device down where nothing but the nftables table filters its senders, until RestoreFilter is called: the table is
// missing.
func (d *Device) Shut() error {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	if d.gate != nil || d.filter == nil {
		return nil
	}
	return d.shutDown()
}

// shutDown brings the device down; filterMu is held.
func (d *Device) shutDown() error {
	d.shut = true
	return d.setUp(false)
}

// keepShut brings the devices down again if they have to be.
func (d *Device) keepShut() error {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	if !d.shut {
		return nil
	}
	return d.setUp(false)
}

// IsShut reports whether the device has to be down, as nothing filters its senders.
func (d *Device) IsShut() bool {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	return d.shut
}

// setUp brings the device and those of pairs up or down.
func (d *Device) setUp(up bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	set, word := d.nl.LinkSetDown, "down"
	if up {
		set, word = d.nl.LinkSetUp, "up"
	}
	indexes := []int{d.index}
	for _, p := range d.pairs {
		indexes = append(indexes, p.index)
	}
	var errs []error
	for _, index := range indexes {
		link, err := d.nl.LinkByIndex(index)
		if err == nil {
			err = set(link)
		}
		if err != nil && (index == d.index || up) { // what does not exist is down
			errs = append(errs, fmt.Errorf("vxlan: bring a device of %s %s: %w", d.cfg.Name, word, err))
		}
	}
	return errors.Join(errs...)
}

// Gate returns why nftables alone filters the senders; nil: there is a second filter, which other programs cannot remove.
func (d *Device) Gate() error {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	return d.gateErr
}

// FilterDrops returns how many datagrams the nftables table has dropped, by FilterReasons.
func (d *Device) FilterDrops(ctx context.Context) (drops map[string]uint64, err error) {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	if d.filter == nil {
		return nil, net.ErrClosed
	}
	err = d.inside(func() error {
		drops, err = d.filter.drops(ctx)
		return err
	})
	return drops, err
}

// closeFilter removes both filters. The gate ends with the process in any case.
func (d *Device) closeFilter() error {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	var errs []error
	if d.filter != nil && !d.kept.Load() {
		errs = append(errs, d.inside(func() error { return d.filter.remove(context.Background()) }))
	}
	d.filter = nil
	if d.gate != nil {
		errs = append(errs, d.gate.close())
		d.gate = nil
	}
	if d.ns.IsOpen() {
		errs = append(errs, d.ns.Close())
	}
	return errors.Join(errs...)
}
