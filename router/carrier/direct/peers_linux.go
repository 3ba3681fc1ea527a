package direct

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"go4.org/netipx"

	"weft/internal/netspace"
	"weft/internal/peer"
	"weft/router/carrier"
)

// SetPeers implements carrier.Carrier. It reaches the peers that take part, and to which the host sends over the underlay interface without
// a router.
func (d *Direct) SetPeers(ctx context.Context, peers []carrier.Peer) (reachable []carrier.Peer, err error) {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return nil, net.ErrClosed
	}
	d.asked = slices.Clone(peers)
	own, targets := d.look(time.Now())
	d.mu.Lock()
	targets = slices.DeleteFunc(targets, func(t target) bool {
		before, known := d.targets[t.ID]
		return known && before.hops != t.hops // it has to be proven anew: Ensure finds that it can be reached
	})
	d.mu.Unlock()
	d.use(own, targets)
	if err := d.apply(ctx); err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, t := range d.targets {
		reachable = append(reachable, t.Peer)
	}
	slices.SortFunc(reachable, func(a, b carrier.Peer) int { return a.ID.Compare(b.ID) })
	return reachable, nil
}

// look returns this node as packets from it are routed now, and what is known about those of the peers that can be reached, sorted by ID.
// setMu is held.
func (d *Direct) look(now time.Time) (own Node, targets []target) {
	node := d.cfg.Nodes.View()
	own = node(d.cfg.Self)
	addrs, probes, links := map[netip.Addr]bool{d.cfg.Local: true}, map[netip.Addr]bool{}, map[netip.Addr]bool{}
	for _, a := range own.Probes {
		probes[a] = true
	}
	for _, p := range slices.SortedFunc(slices.Values(d.asked), func(a, b carrier.Peer) int { return a.ID.Compare(b.ID) }) {
		p.Addr = p.Addr.Unmap()
		t := newTarget(p, own, node(p.ID))
		if links[t.hops[ip6]] { // of another peer as well
			t.hops[ip6] = netip.Addr{}
		}
		if p.ID.IsZero() || p.ID == d.cfg.Self || !usable(p.Addr) || addrs[p.Addr] || len(t.families()) == 0 || !t.owns(probes) ||
			now.Sub(d.refused[p.ID]) < refusedTime || !d.uplink.onLink(d.nl, p.Addr) {
			continue
		}
		addrs[p.Addr] = true
		if hop := t.hops[ip6]; hop.IsValid() {
			links[hop] = true
		}
		for _, a := range t.node.Probes {
			probes[a] = true
		}
		targets = append(targets, t)
	}
	own.Share = d.settled(own.Share, now)
	return own, targets
}

// pastShare is the share of this node from a moment on.
type pastShare struct {
	at  time.Time
	set *netipx.IPSet
}

// settled returns what of a share has been this node's for long. At the start all is. setMu is held.
func (d *Direct) settled(share []netip.Prefix, now time.Time) []netip.Prefix {
	var b netipx.IPSetBuilder
	for _, p := range share {
		b.AddPrefix(p)
	}
	set, err := b.IPSet()
	if err != nil || len(share) == 0 {
		return nil
	}
	if n := len(d.shares); n == 0 || !d.shares[n-1].set.Equal(set) {
		d.shares = append(d.shares, pastShare{now, set})
	}
	for len(d.shares) > 1 && now.Sub(d.shares[1].at) >= settleTime {
		d.shares = slices.Delete(d.shares, 0, 1)
	}
	b.AddSet(set)
	for _, past := range d.shares {
		b.Intersect(past.set)
	}
	if set, err = b.IPSet(); err != nil {
		return nil
	}
	return set.Prefixes()
}

// owns reports whether the addresses of the peer's probes are its own: in its share, and none of used.
func (t target) owns(used map[netip.Addr]bool) bool {
	return !slices.ContainsFunc(t.node.Probes, func(a netip.Addr) bool {
		return used[a] || !slices.ContainsFunc(t.node.Share, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// use makes own and targets those of the carrier. Peers that are not among them are not carried any more. setMu is held.
func (d *Direct) use(own Node, targets []target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.own = own
	next := make(map[peer.ID]target, len(targets))
	for _, t := range targets {
		next[t.ID] = t
		delete(d.gone, t.ID)
	}
	for id, before := range d.targets {
		now, stays := next[id]
		if !stays {
			d.gone[id] = true
			delete(d.probes, id)
		}
		if !stays || now.Peer != before.Peer {
			delete(d.carried, id)
		}
	}
	d.targets = next
}

// isOpen reports whether packets from addresses of no peer pass: there may be peers that this node does not know yet.
func (d *Direct) isOpen() bool { return time.Since(d.opened) < openTime }

// Ensure implements carrier.Carrier. It also follows the shares of the nodes. The error wraps carrier.ErrPeers if other peers can be
// reached now.
func (d *Direct) Ensure(ctx context.Context) error {
	intact, err := d.FilterIntact()
	if err != nil {
		return err
	}
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return net.ErrClosed
	}
	own, targets := d.look(time.Now())
	changed, err := d.differs(own, targets)
	if err != nil {
		return err
	}
	changed = changed || d.wasOpen != d.isOpen()
	d.use(own, targets)
	if !intact || changed {
		return d.apply(ctx)
	}
	return netspace.Do(d.ns, func() error {
		mac := d.mac
		if err := d.plug(); err != nil || d.mac != mac {
			return errors.Join(err, d.set(ctx))
		}
		_, err := d.setRoutes(d.state())
		return err
	})
}

// differs reports whether the rules are to be others for own and targets. The error wraps carrier.ErrPeers if these are other peers.
func (d *Direct) differs(own Node, targets []target) (bool, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	changed := !slices.Equal(own.Share, d.own.Share) || !slices.Equal(own.Probes, d.own.Probes)
	for _, t := range targets {
		before, known := d.targets[t.ID]
		if !known || before.hops != t.hops {
			return false, fmt.Errorf("direct: %s: %w", t.ID, carrier.ErrPeers)
		}
		changed = changed || !before.same(t)
	}
	if len(targets) != len(d.targets) {
		return false, fmt.Errorf("direct: %d peers instead of %d: %w", len(targets), len(d.targets), carrier.ErrPeers)
	}
	return changed, nil
}
