package vxlan

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/netdump"
	"weft/internal/peer"
)

// tables are the kernel's entries for hardware addresses.
type tables struct {
	learned map[ether.Addr]remote          // by the device, or added with an age
	bridge  map[ether.Addr][]netlink.Neigh // by the device's bridge, one for each VLAN
}

type remote struct {
	addr netip.Addr
	age  time.Duration
}

// dump reads both tables, which netlink returns together.
func (d *Device) dump() (tables, error) {
	own, err := d.attrs()
	if err != nil {
		return tables{}, err
	}
	entries, err := netdump.Repeat(func() ([]netlink.Neigh, error) { return d.nl.NeighList(0, unix.AF_BRIDGE) })
	if err != nil {
		return tables{}, fmt.Errorf("vxlan: read the tables of addresses: %w", err)
	}
	t := tables{map[ether.Addr]remote{}, map[ether.Addr][]netlink.Neigh{}}
	for _, e := range entries {
		if len(e.HardwareAddr) != len(ether.Addr{}) {
			continue
		}
		mac := ether.Addr(e.HardwareAddr)
		addr, isRemote := netip.AddrFromSlice(e.IP)
		switch {
		case e.MasterIndex != 0:
			if e.MasterIndex == own.MasterIndex {
				t.bridge[mac] = append(t.bridge[mac], e)
			}
		case e.LinkIndex == d.index && isRemote && e.State&netlink.NUD_PERMANENT == 0:
			t.learned[mac] = remote{addr, age(e)}
		}
	}
	return t, nil
}

// age returns how long ago an entry was last used or changed.
func age(e netlink.Neigh) time.Duration {
	return time.Duration(min(e.Used, e.Updated)) * time.Second / userHZ
}

// userHZ is the unit of ages in netlink, on every architecture that Go knows (USER_HZ).
const userHZ = 100

// Entry is an address that the device has learned.
type Entry struct {
	MAC ether.Addr `json:"mac"`
	// Peer is the node that MAC is behind, and Addr the address of that node on the underlay.
	Peer peer.ID    `json:"peer"`
	Addr netip.Addr `json:"addr"`
	// Age is how long ago a frame from or to MAC was last seen.
	Age time.Duration `json:"age"`
}

// Entries returns the addresses that the device has learned, sorted. It leaves out those of the peers' devices, and those that the bridge
// has seen at another port since: the kernel keeps them for some minutes, and does not use them.
func (d *Device) Entries() ([]Entry, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, net.ErrClosed
	}
	tables, err := d.dump()
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(tables.learned))
	for mac, r := range tables.learned {
		seen := tables.bridge[mac]
		if len(seen) > 0 && !slices.ContainsFunc(seen, func(e netlink.Neigh) bool { return e.LinkIndex == d.index }) {
			continue
		}
		entries = append(entries, Entry{MAC: mac, Peer: d.byAddr[r.addr], Addr: r.addr, Age: r.age})
	}
	for mac, seen := range tables.bridge {
		for _, e := range seen {
			if p := d.pairAt(e.LinkIndex); p != nil && e.State&netlink.NUD_PERMANENT == 0 {
				entries = append(entries, Entry{MAC: mac, Peer: p.peer.ID, Addr: p.peer.Addr, Age: age(e)})
				break // one for each VLAN
			}
		}
	}
	slices.SortFunc(entries, func(a, b Entry) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return entries, nil
}

// hasDevice reports whether an index is that of the common device or of one of a pair. mu is held.
func (d *Device) hasDevice(index int) bool { return index == d.index || d.pairAt(index) != nil }

// pairAt returns the pair with the device of an index; nil: there is none. mu is held.
func (d *Device) pairAt(index int) *pair {
	for _, p := range d.pairs {
		if p.index == index {
			return p
		}
	}
	return nil
}
