package vxlan

import (
	"context"
	"crypto/subtle"
	"errors"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/nflog"
)

// moveEvery is the shortest time between two changes of where a peer is heard: each sets the filter.
const moveEvery = time.Second

// listen reads the beginnings of pairs, until the log group is closed.
func (d *Device) listen() {
	for {
		packets, err := d.hellos.Receive()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil:
			d.log.Warn("cannot hear peers that begin a pair", "err", err)
			return
		}
		for _, p := range packets {
			if h, ok := parseHello(p.Data); ok {
				d.hear(h)
			}
		}
	}
}

// hear lets a peer in from the address and port of its hello, and sends to it there.
func (d *Device) hear(h hello) {
	d.filterMu.Lock()
	defer d.filterMu.Unlock()
	changed, err := d.follow(h)
	if changed {
		next := d.allowed
		d.mu.Lock()
		next.pairs, next.expected = d.pairSenders(d.pairPeers)
		d.mu.Unlock()
		err = errors.Join(err, d.setFilter(context.Background(), next))
	}
	if err != nil && !errors.Is(err, net.ErrClosed) {
		d.log.Warn("cannot follow a peer of a pair", "peer", h.probe.From, "addr", h.from, "err", err)
	}
}

// follow sets where the peer of a hello is reached, if the token is that of its pair.
func (d *Device) follow(h hello) (changed bool, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.pairs[h.probe.From]
	if d.closed || p == nil || p.begins() || h.probe.To != d.cfg.Self || h.vni != p.peer.Pair.VNI || h.from.Addr() != p.peer.Addr ||
		subtle.ConstantTimeCompare(h.token[:], p.peer.Pair.Token[:]) != 1 {
		return false, nil
	}
	switch {
	case time.Since(p.moved) < moveEvery:
		return false, nil // it is repeated
	case p.remote == h.from:
		return true, nil // the filter may be older
	}
	err = d.unreach(p)
	for _, other := range d.pairs {
		if other.remote == h.from && !other.begins() {
			err = errors.Join(err, d.unreach(other)) // the translator has given its port to another node
		}
	}
	p.remote, p.moved, p.moves = h.from, time.Now(), p.moves+1
	return true, errors.Join(err, d.putPair(p))
}

// unreach forgets where a peer is reached. mu is held.
func (d *Device) unreach(p *pair) error {
	if !p.remote.IsValid() {
		return nil
	}
	err := errors.Join(
		ignore(d.change(unix.RTM_DELNEIGH, 0, p, ether.Addr{}), unix.ENOENT),
		ignore(d.change(unix.RTM_DELNEIGH, 0, p, ProbeMAC(p.peer.ID)), unix.ENOENT),
	)
	p.remote = netip.AddrPort{}
	return err
}

// openHellos opens the log group of the beginnings of pairs. Without one there are no pairs.
func (d *Device) openHellos() {
	if d.cfg.Ports == nil {
		return
	}
	hellos, err := nflog.Open(nflog.Config{Group: d.cfg.Group, Length: uint32(helloLen), AtOnce: true, NetNS: int(d.ns)})
	if err != nil {
		d.log.Warn("the kernel carries no frames to peers behind address translators, nor to those of the other family", "err", err)
		d.filter.group = 0
		return
	}
	d.hellos = hellos
	d.running.Go(d.listen)
}
