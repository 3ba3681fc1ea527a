package vxlan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
)

// SetPeers replaces the peers of the device: only they may send to it, and probes can be sent to them. New peers are
// not carried yet; those that were there before are not changed. Entries for removed peers, and for peers with another
// address, are removed. It returns the peers that the device can reach: not this node itself, none of the other family without a pair,
// and of two peers with the same address, or with the same hardware address of their devices, only the first in order
// of their IDs.
func (d *Device) SetPeers(ctx context.Context, peers []carrier.Peer) (reachable []carrier.Peer, err error) {
	reachable = d.admissible(peers)
	known := map[peer.ID]netip.Addr{}
	var allowed senders
	for _, p := range reachable {
		known[p.ID] = p.Addr
		allowed.peers = append(allowed.peers, p.Addr)
	}
	pairs := d.admissiblePairs(peers, reachable)
	// The filter is set first: otherwise a frame of a removed peer could make the device learn its entries again.
	d.filterMu.Lock()
	d.pairPeers = pairs
	d.mu.Lock()
	allowed.pairs, allowed.expected = d.pairSenders(pairs)
	d.mu.Unlock()
	err = d.setFilter(ctx, allowed)
	d.filterMu.Unlock()
	if err := errors.Join(err, d.forgetOthers(known)); err != nil {
		return nil, err
	}
	if err := d.know(known); err != nil {
		return nil, err
	}
	paired, err := d.setPairs(pairs)
	return append(reachable, paired...), err
}

// know adds peers, and the entries that are not learned.
func (d *Device) know(peers map[peer.ID]netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	for id, addr := range peers {
		d.peers[id], d.byAddr[addr] = addr, id
	}
	return d.putEntries()
}

// putEntries adds the entries that are not learned, if they are missing: for probes to all peers, and for floods to the
// peers that the kernel carries. mu is held.
func (d *Device) putEntries() error {
	var errs []error
	for id, addr := range d.peers {
		errs = append(errs, d.nl.NeighSet(d.entry(ProbeMAC(id), addr, netlink.NUD_PERMANENT)))
		if d.carried[id] {
			errs = append(errs, d.nl.NeighAppend(d.entry(ether.Addr{}, addr, netlink.NUD_PERMANENT)))
		}
	}
	for _, p := range d.pairs {
		errs = append(errs, d.putPair(p))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("vxlan: entries of %s: %w", d.cfg.Name, err)
	}
	return nil
}

// admissible returns those of peers that the device can reach and distinguish, sorted by ID.
func (d *Device) admissible(peers []carrier.Peer) (reachable []carrier.Peer) {
	addrs := map[netip.Addr]bool{d.cfg.Local: true}
	macs := map[ether.Addr]bool{ProbeMAC(d.cfg.Self): true}
	for _, p := range slices.SortedFunc(slices.Values(peers), func(a, b carrier.Peer) int { return a.ID.Compare(b.ID) }) {
		p.Addr = p.Addr.Unmap()
		mac := ProbeMAC(p.ID)
		if p.Pair != (carrier.Pair{}) || p.ID.IsZero() || !Usable(p.Addr) || p.Addr.Is4() != d.cfg.Local.Is4() || addrs[p.Addr] || macs[mac] {
			continue
		}
		addrs[p.Addr], macs[mac] = true, true
		reachable = append(reachable, p)
	}
	return reachable
}

// forgetOthers removes the entries of all peers that are not in known.
func (d *Device) forgetOthers(known map[peer.ID]netip.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	var errs []error
	for id, addr := range d.peers {
		if known[id] == addr {
			continue
		}
		delete(d.peers, id)
		delete(d.carried, id)
		delete(d.byAddr, addr)
		errs = append(errs, d.purge(addr), ignore(d.nl.NeighDel(d.entry(ProbeMAC(id), addr, netlink.NUD_PERMANENT)), unix.ENOENT))
	}
	return errors.Join(errs...)
}

// Carry makes the kernel carry frames to the peer id: broadcasts, and frames for macs, which are behind it, unless the
// bridge has seen them elsewhere since. Further addresses are learned. It may be called again with more addresses.
// Without on it undoes all of that: it removes the addresses that the device learned behind the peer, and those that
// the bridge learned from the device, so that the bridge floods again. The error wraps carrier.ErrUnknownPeer if the peer is
// not one of SetPeers.
func (d *Device) Carry(id peer.ID, on bool, macs []ether.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	addr, ok := d.peers[id]
	switch p := d.pairs[id]; {
	case p != nil:
		return d.carryPair(p, on, macs)
	case !ok && on:
		return fmt.Errorf("vxlan: %s: %w", id, carrier.ErrUnknownPeer)
	case !ok:
		delete(d.carried, id)
		return nil // SetPeers removed the entries
	case !on:
		delete(d.carried, id)
		return d.purge(addr)
	}
	first := !d.carried[id]
	d.carried[id] = true
	if err := d.nl.NeighAppend(d.entry(ether.Addr{}, addr, netlink.NUD_PERMANENT)); err != nil {
		return fmt.Errorf("vxlan: flood entry for %s: %w", addr, err)
	}
	tap := d.tapIndex()
	if err := d.move(addr, macs, tap); err != nil || !first {
		return err
	}
	return d.forgetTap(tap)
}

// tapIndex returns the index of the TAP; 0: there is none.
func (d *Device) tapIndex() int {
	link, err := d.nl.LinkByName(d.cfg.Tap)
	if err != nil {
		return 0
	}
	return link.Attrs().Index
}

// forgetTap removes the addresses that the bridge learned from the TAP, so that it floods again. Some of them may be
// behind the peer although the router does not know it, as the router forgets a peer that is away for some time.
func (d *Device) forgetTap(tap int) error {
	tables, err := d.dump()
	if err != nil {
		return err
	}
	var errs []error
	for mac, seen := range tables.bridge {
		errs = append(errs, d.forgetAt(mac, seen, func(index int) bool { return index == tap }))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("vxlan: remove the addresses behind %s: %w", d.cfg.Tap, err)
	}
	return nil
}

// move adds entries for macs behind addr. The bridge's knowledge is newer than the router's: an address that the bridge
// has seen at another port than the TAP since is not behind the peer any more. What the kernel learns between the two reads and the change
// of its tables stays: entries are only removed where they were, and only added where there is none.
func (d *Device) move(addr netip.Addr, macs []ether.Addr, tap int) error {
	if len(macs) == 0 {
		return nil
	}
	tables, err := d.dump()
	if err != nil {
		return err
	}
	var errs []error
	for _, mac := range macs {
		if d.isProbeMAC(mac) {
			continue
		}
		seen := tables.bridge[mac]
		atTap := slices.DeleteFunc(slices.Clone(seen), func(at netlink.Neigh) bool { return at.LinkIndex != tap })
		if len(seen) > 0 && len(atTap) == 0 {
			continue
		}
		if old, known := tables.learned[mac]; known && old.addr != addr {
			errs = append(errs, ignore(d.nl.NeighDel(d.entry(mac, old.addr, netlink.NUD_REACHABLE)), unix.ENOENT))
		}
		errs = append(errs, ignore(d.nl.NeighAdd(d.entry(mac, addr, netlink.NUD_REACHABLE)), unix.EEXIST))
		for _, at := range atTap { // one for each VLAN
			errs = append(errs, d.movePort(mac, at.Vlan, tap, d.index))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("vxlan: move the addresses behind %s: %w", addr, err)
	}
	return nil
}

// movePort moves an entry of the bridge from one port to another, unless the bridge has just seen the address elsewhere.
func (d *Device) movePort(mac ether.Addr, vlan, from, to int) error {
	return errors.Join(ignore(d.nl.NeighDel(port(mac, vlan, from)), unix.ENOENT), ignore(d.nl.NeighAdd(port(mac, vlan, to)), unix.EEXIST))
}

// forgetAt removes those entries of the bridge for mac that it has learned from interfaces that match. seen are all for mac.
func (d *Device) forgetAt(mac ether.Addr, seen []netlink.Neigh, match func(index int) bool) error {
	var errs []error
	for _, at := range seen {
		if match(at.LinkIndex) && at.State&netlink.NUD_PERMANENT == 0 {
			errs = append(errs, ignore(d.nl.NeighDel(port(mac, at.Vlan, at.LinkIndex)), unix.ENOENT))
		}
	}
	return errors.Join(errs...)
}

// Forget implements carrier.Carrier.
func (d *Device) Forget(macs []ether.Addr) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return net.ErrClosed
	}
	tables, err := d.dump()
	if err != nil {
		return err
	}
	var errs []error
	for _, mac := range macs {
		if d.isProbeMAC(mac) {
			continue
		}
		if at, known := tables.learned[mac]; known {
			errs = append(errs, ignore(d.nl.NeighDel(d.entry(mac, at.addr, netlink.NUD_REACHABLE)), unix.ENOENT))
		}
		errs = append(errs, d.forgetAt(mac, tables.bridge[mac], d.hasDevice))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("vxlan: remove addresses that have moved: %w", err)
	}
	return nil
}

// isProbeMAC reports whether mac is the address of a peer's device, and pods must not change its entry.
func (d *Device) isProbeMAC(mac ether.Addr) bool {
	for id := range d.peers {
		if ProbeMAC(id) == mac {
			return true
		}
	}
	for id := range d.pairs {
		if ProbeMAC(id) == mac {
			return true
		}
	}
	return mac == ProbeMAC(d.cfg.Self)
}

// purge removes all entries of the device for addr except that for probes, and all entries of the bridge for the device
// except those of another peer.
func (d *Device) purge(addr netip.Addr) error {
	tables, err := d.dump()
	if err != nil {
		return err
	}
	errs := []error{ignore(d.nl.NeighDel(d.entry(ether.Addr{}, addr, netlink.NUD_PERMANENT)), unix.ENOENT)}
	for mac, remote := range tables.learned {
		if remote.addr == addr {
			errs = append(errs, ignore(d.nl.NeighDel(d.entry(mac, addr, netlink.NUD_REACHABLE)), unix.ENOENT))
		}
	}
	for mac, seen := range tables.bridge {
		if remote, known := tables.learned[mac]; known && remote.addr != addr {
			continue
		}
		errs = append(errs, d.forgetAt(mac, seen, func(index int) bool { return index == d.index }))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("vxlan: remove the addresses behind %s: %w", addr, err)
	}
	return nil
}

// entry returns an entry of the device itself: frames to mac go to addr.
func (d *Device) entry(mac ether.Addr, addr netip.Addr, state int) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: d.index, Family: unix.AF_BRIDGE, State: state, Flags: netlink.NTF_SELF,
		HardwareAddr: mac[:], IP: addr.AsSlice()}
}

// port returns an entry of the bridge: frames to mac go out of the interface with the given index.
func port(mac ether.Addr, vlan, index int) *netlink.Neigh {
	return &netlink.Neigh{LinkIndex: index, Family: unix.AF_BRIDGE, State: netlink.NUD_REACHABLE, Flags: netlink.NTF_MASTER,
		HardwareAddr: mac[:], Vlan: vlan}
}

// ignore returns err unless it is errno.
func ignore(err error, errno unix.Errno) error {
	if errors.Is(err, errno) {
		return nil
	}
	return err
}
