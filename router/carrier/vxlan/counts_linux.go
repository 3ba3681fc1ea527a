package vxlan

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"

	"github.com/google/nftables"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/carrier"
)

// Counts returns what the device has carried from and to the peers of SetPeers since the rules were made. After Close the error is
// net.ErrClosed.
func (d *Device) Counts() (map[peer.ID]carrier.Counts, error) {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	if d.filter == nil {
		return nil, net.ErrClosed
	}
	conn, err := nftables.New(nftables.WithNetNSFd(int(d.ns)))
	if err != nil {
		return nil, fmt.Errorf("vxlan: read the counters of peers: %w", err)
	}
	counts := map[peer.ID]carrier.Counts{}
	for _, name := range []string{setReceived, setSent} {
		set := &nftables.Set{Table: &nftables.Table{Name: tableName(d.cfg.Name), Family: nftables.TableFamilyINet}, Name: d.filter.set(name)}
		elements, err := conn.GetSetElements(set)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // another program has removed the table: it is restored soon
			return nil, fmt.Errorf("vxlan: read the counters of peers: %w", err)
		}
		d.count(counts, name, elements)
	}
	d.countPairs(counts)
	return counts, nil
}

// countPairs adds the statistics of the devices of pairs.
func (d *Device) countPairs(counts map[peer.ID]carrier.Counts) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	for id, p := range d.pairs {
		if link, err := d.nl.LinkByIndex(p.index); err == nil {
			var t traffic
			t.add(link.Attrs())
			counts[id] = t.Counts
		}
	}
}

// count adds the elements of a set to counts. filterMu is held.
func (d *Device) count(counts map[peer.ID]carrier.Counts, set string, elements []nftables.SetElement) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range elements {
		addr, ok := netip.AddrFromSlice(e.Key)
		id, known := d.byAddr[addr]
		if !ok || !known || e.Counter == nil {
			continue
		}
		c := counts[id]
		if set == setReceived {
			c.RxFrames, c.RxBytes = e.Counter.Packets, d.frameBytes(e.Counter.Packets, e.Counter.Bytes)
		} else {
			c.TxFrames, c.TxBytes = e.Counter.Packets, d.frameBytes(e.Counter.Packets, e.Counter.Bytes)
		}
		counts[id] = c
	}
}

// frameBytes returns the bytes of frames in packets of the underlay.
func (d *Device) frameBytes(packets, bytes uint64) uint64 {
	overhead := uint64(Overhead4 - ether.HeaderLen)
	if !d.cfg.Local.Is4() {
		overhead = Overhead6 - ether.HeaderLen
	}
	return bytes - min(bytes, packets*overhead)
}
