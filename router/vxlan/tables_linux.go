package vxlan

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/peer"
)

// tables is what the kernel knows of addresses.
type tables struct {
	learned map[ether.Addr]remote          // by the device, or put there for a time
	bridge  map[ether.Addr][]netlink.Neigh // by the device's bridge, one for each VLAN
}

type remote struct {
	addr netip.Addr
	age  time.Duration
}

// dump reads the tables, which netlink has in one.
func (d *Device) dump() (tables, error) {
	own, err := d.attrs()
	if err != nil {
		return tables{}, err
	}
	entries, err := d.nl.NeighList(0, unix.AF_BRIDGE)
	for range 3 { // a table that changes meanwhile
		if !errors.Is(err, netlink.ErrDumpInterrupted) {
			break
		}
		entries, err = d.nl.NeighList(0, unix.AF_BRIDGE)
	}
	if err != nil && !errors.Is(err, netlink.ErrDumpInterrupted) {
		return tables{}, fmt.Errorf("vxlan: reading the tables of addresses: %w", err)
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
			t.learned[mac] = remote{addr, time.Duration(min(e.Used, e.Updated)) * time.Second / userHZ}
		}
	}
	return t, nil
}

// userHZ is the unit of ages in netlink, on every architecture that Go knows (USER_HZ).
const userHZ = 100

// Entry is what the device has learned of an address.
type Entry struct {
	MAC ether.Addr `json:"mac"`
	// Peer is the node behind which MAC is, and Addr that node's address on the underlay.
	Peer peer.ID    `json:"peer"`
	Addr netip.Addr `json:"addr"`
	// Age is how long ago a frame from or to MAC was last seen.
	Age time.Duration `json:"age"`
}

// Entries returns what the device knows of addresses, sorted by them; not in it are those of the devices themselves.
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
		entries = append(entries, Entry{MAC: mac, Peer: d.byAddr[r.addr], Addr: r.addr, Age: r.age})
	}
	slices.SortFunc(entries, func(a, b Entry) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
	return entries, nil
}
