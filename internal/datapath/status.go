package datapath

import (
	"bytes"
	"maps"
	"slices"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router"
	"weft/router/carrier"
	"weft/router/underlay"
	"weft/tap/virtio"
)

// Stats returns the router's counters; false before the datapath is up.
func (d *Datapath) Stats() (router.Stats, bool) {
	e := d.current.Load()
	if e == nil {
		return router.Stats{}, false
	}
	return e.router.Stats(), true
}

// KernelSample returns what the kernel has carried by itself; false where there is no kernel path.
func (d *Datapath) KernelSample() (carrier.Sample, bool) {
	e := d.current.Load()
	if e == nil {
		return carrier.Sample{}, false
	}
	return e.kernel.sample()
}

// KernelCounts returns what the kernel has carried from and to each peer.
func (d *Datapath) KernelCounts() map[peer.ID]carrier.Counts {
	sums := map[peer.ID]carrier.Counts{}
	e := d.current.Load()
	if e == nil {
		return sums
	}
	for _, k := range e.kernel {
		counts, err := k.totals.Update(k.readCounts)
		if err != nil {
			d.log.Debug("cannot read the counts of the kernel path", "carrier", k.kind, "err", err) // it has just been removed
		}
		for id, c := range counts {
			sums[id] = sums[id].Add(c)
		}
	}
	return sums
}

// readCounts returns what the present device has carried, with its run.
func (k *kernelPath) readCounts() (any, map[peer.ID]carrier.Counts, error) {
	run := k.current.Load()
	if run == nil {
		return run, nil, nil
	}
	counts, err := run.carrier.Counts()
	return run, counts, err
}

// Carrier returns what carries frames to a peer. It is cheap.
func (d *Datapath) Carrier(id peer.ID) carrier.Kind {
	if e := d.current.Load(); e != nil {
		return e.kernel.carrier(id)
	}
	return carrier.Userspace
}

// Sockets returns the data sockets and the entropy ports, for their metrics. They belong to the Datapath.
func (d *Datapath) Sockets() []*underlay.UDP { return slices.Concat(d.conns, d.entropyPorts) }

// Offloads returns the names of the offloads that TAP and underlay were found to support; never nil.
func (d *Datapath) Offloads() []string {
	names := []string{}
	e := d.current.Load()
	if e == nil {
		return names
	}
	for _, f := range []struct {
		feature virtio.Features
		name    string
	}{{virtio.FeatureTSO4, "tso4"}, {virtio.FeatureTSO6, "tso6"}, {virtio.FeatureUSO, "uso"}} {
		if e.features.Has(f.feature) {
			names = append(names, f.name)
		}
	}
	all := underlay.GSO | underlay.GRO
	for _, c := range d.conns {
		all &= c.Features()
	}
	return append(names, all.Names()...)
}

// FDBEntry is a learned MAC address.
type FDBEntry struct {
	MAC  ether.Addr
	Peer peer.ID // zero: this host
	Age  time.Duration
}

// FDB returns the addresses that router and kernel have learned behind this host and live peers, sorted by MAC. Behind a dead peer the
// kernel may still have some, which it goes on using (see kernelPeers), but that they are right is not known any more.
func (d *Datapath) FDB() []FDBEntry {
	e := d.current.Load()
	if e == nil {
		return nil
	}
	// An address is at one port of the bridge. What the bridge sees at a carrier is behind the peer that the carrier has learned, though
	// the router may have seen it elsewhere before.
	known := map[ether.Addr]FDBEntry{}
	for _, l := range e.router.FDB() {
		known[l.MAC] = FDBEntry{MAC: l.MAC, Peer: l.Peer, Age: l.Age}
	}
	for _, l := range e.kernel.entries() {
		if !l.Peer.IsZero() && !d.cfg.Membership.Dead(l.Peer) { // zero: of a peer that has just left
			known[l.MAC] = FDBEntry{MAC: l.MAC, Peer: l.Peer, Age: l.Age}
		}
	}
	return slices.SortedFunc(maps.Values(known), func(a, b FDBEntry) int { return bytes.Compare(a.MAC[:], b.MAC[:]) })
}
