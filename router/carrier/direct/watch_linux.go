package direct

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"

	"weft/internal/ether"
	headers "weft/internal/packet"
	"weft/internal/peer"
	"weft/router/carrier/framewatch"
)

// Watch calls f for every packet that is routed to peers and from them, except for probes, as a frame of the bridge, until ctx or the
// carrier ends; see framewatch.Watch.
func (d *Direct) Watch(ctx context.Context, f func(framewatch.Watched)) error {
	return d.watch(ctx, func(ctx context.Context, at framewatch.Interface) error { return framewatch.Watch(ctx, at, f) })
}

// SampleFrames calls f for one of N packets that are routed to peers and from them, until ctx or the carrier ends; see framewatch.Sample.
func (d *Direct) SampleFrames(ctx context.Context, every func() int, f func(framewatch.Sampled)) error {
	return d.watch(ctx, func(ctx context.Context, at framewatch.Interface) error { return framewatch.Sample(ctx, at, every, f) })
}

// watch calls f until the carrier ends. A bridge that is deleted is no error: it is made again.
func (d *Direct) watch(ctx context.Context, f func(context.Context, framewatch.Interface) error) error {
	at, err := d.watched()
	if err != nil {
		return nil // there will be another bridge, or another carrier
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(d.done, cancel)()
	return ignore(f(ctx, at), unix.ENODEV)
}

// watched is the bridge as an interface with frames: the host gets from it what it routes to peers, and sends through it what peers route
// here.
func (d *Direct) watched() (framewatch.Interface, error) {
	d.alive.RLock()
	defer d.alive.RUnlock()
	if d.closed {
		return framewatch.Interface{}, net.ErrClosed
	}
	br, err := d.nl.LinkByName(d.cfg.Bridge)
	if err != nil {
		return framewatch.Interface{}, fmt.Errorf("direct: bridge %s: %w", d.cfg.Bridge, err)
	}
	return framewatch.Interface{Name: d.cfg.Bridge, Index: br.Attrs().Index, Ends: ends{d}}, nil
}

// ends finds the other ends of packets by the shares of the nodes.
type ends struct{ d *Direct }

// Other implements framewatch.Ends.
func (e ends) Other(frame []byte, outgoing bool) (id peer.ID, sent, ok bool) {
	src, dst, ok := addrsOf(frame)
	if !ok {
		return id, false, false
	}
	own, other := src, dst
	if outgoing {
		own, other = dst, src
	}
	e.d.mu.Lock()
	defer e.d.mu.Unlock()
	if !within(e.d.own.Share, own) || slices.Contains(e.d.own.Hosts, own) {
		return id, false, false
	}
	for _, t := range e.d.targets {
		if within(t.node.Share, other) && !slices.Contains(t.node.Hosts, other) && !slices.Contains(t.node.Probes, other) &&
			(outgoing || e.d.carried[t.ID]) {
			return t.ID, !outgoing, true
		}
	}
	return id, false, false
}

// within reports whether one of prefixes has an address.
func within(prefixes []netip.Prefix, a netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Contains(a) })
}

// addrsOf returns the addresses of an IP packet in a frame, which may be cut off behind them.
func addrsOf(frame []byte) (src, dst netip.Addr, ok bool) {
	const source4, source6 = 12, 8 // offsets in the headers
	at, kind, ok := headers.Ethernet(frame, 0)
	switch {
	case !ok:
	case kind == ether.TypeIPv4 && len(frame) >= at+source4+8:
		return netip.AddrFrom4([4]byte(frame[at+source4:])), netip.AddrFrom4([4]byte(frame[at+source4+4:])), true
	case kind == ether.TypeIPv6 && len(frame) >= at+source6+32:
		return netip.AddrFrom16([16]byte(frame[at+source6:])), netip.AddrFrom16([16]byte(frame[at+source6+16:])), true
	}
	return src, dst, false
}
