package direct

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"weft/internal/ether"
	"weft/internal/netspace"
	"weft/internal/nftsum"
	"weft/internal/peer"
	"weft/router/carrier"
)

// state returns the rules as they are to be.
func (d *Direct) state() ruleset {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := ruleset{mac: d.mac, uplink: d.uplink.name, own: d.own, carried: map[peer.ID]bool{}, open: d.isOpen()}
	for _, t := range d.targets {
		s.targets = append(s.targets, t)
	}
	slices.SortFunc(s.targets, func(a, b target) int { return a.ID.Compare(b.ID) })
	for id := range d.carried {
		s.carried[id] = true
	}
	return s
}

// apply sets rules and routes. setMu is held.
func (d *Direct) apply(ctx context.Context) error {
	return netspace.Do(d.ns, func() error { return d.set(ctx) })
}

// set is apply in the namespace. Peers to which the kernel refuses a route are left out.
func (d *Direct) set(ctx context.Context) error {
	if err := d.plug(); err != nil {
		return err
	}
	s := d.state()
	failed, err := d.setRoutes(s)
	if err != nil {
		return err
	}
	if len(failed) > 0 {
		for id := range failed {
			d.refused[id] = time.Now()
		}
		d.use(s.own, slices.DeleteFunc(s.targets, func(t target) bool { return failed[t.ID] != nil }))
		s = d.state()
		if _, err := d.setRoutes(s); err != nil {
			return err
		}
	}
	gone := make([]peer.ID, 0, len(d.gone))
	for id := range d.gone {
		gone = append(gone, id)
	}
	d.sums = [2]nftsum.Sum{}
	if err := d.rules.apply(ctx, s, gone); err != nil {
		return err
	}
	clear(d.gone)
	d.wasOpen = s.open
	return d.sum()
}

// routesOf returns the routes for a target: to its probes, and to its share, which is behind the bridge where it is not carried, as the
// target's own addresses always are. Without a route to the source of a packet a host drops it, unless rp_filter is off, and two nodes do
// not move at the same moment.
func (d *Direct) routesOf(t target, carried bool, bridge int) (list []route) {
	for _, f := range t.families() {
		list = append(list, route{hostPrefix(t.node.probe(f)), t.hops[f], d.uplink.index})
	}
	own := map[netip.Prefix]bool{} // with routes of their own
	for _, w := range list {
		own[w.dst] = true
	}
	for _, a := range t.node.Hosts {
		in := func(p netip.Prefix) bool { return p.Contains(a) }
		if p := hostPrefix(a); !own[p] && slices.ContainsFunc(t.share(), in) {
			list, own[p] = append(list, route{dst: p, link: bridge}), true
		}
	}
	for _, p := range t.share() {
		switch {
		case own[p]:
		case carried:
			list = append(list, route{p, t.hops[familyOf(p.Addr())], d.uplink.index})
		default:
			list = append(list, route{dst: p, link: bridge})
		}
	}
	return list
}

// setRoutes sets the routes for all targets. failed are those to which the kernel refuses one.
func (d *Direct) setRoutes(s ruleset) (failed map[peer.ID]error, err error) {
	br, err := d.nl.LinkByName(d.cfg.Bridge)
	if err != nil {
		return nil, fmt.Errorf("direct: bridge %s: %w", d.cfg.Bridge, err)
	}
	var want []route
	of := map[route]peer.ID{}
	for _, t := range s.targets {
		for _, w := range d.routesOf(t, s.carried[t.ID], br.Attrs().Index) {
			want, of[w] = append(want, w), t.ID
		}
	}
	refused, err := d.routes.set(want)
	failed = map[peer.ID]error{}
	for w, cause := range refused {
		failed[of[w]] = cause
	}
	return failed, err
}

// sum notes the checksums of the tables.
func (d *Direct) sum() (err error) {
	d.unknown = [2]bool{}
	for i, f := range tableFamilies {
		if d.sums[i], err = nftsum.Of(f, tableName(d.cfg.Table)); err != nil {
			return err
		}
	}
	return nil
}

// tableFamilies are those of the tables of nftables.
var tableFamilies = [2]nftsum.Family{nftsum.Bridge, nftsum.Inet}

// Forget implements carrier.Carrier.
func (*Direct) Forget([]ether.Addr) error { return nil }

// Carry implements carrier.Carrier. Pods' own addresses stay where the bridge knows them, so it has no use for macs. Routes are there
// before the rules that need them, and until these are gone.
func (d *Direct) Carry(id peer.ID, on bool, _ []ether.Addr) error {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return net.ErrClosed
	}
	d.mu.Lock()
	t, known := d.targets[id]
	before := d.carried[id]
	if known && on {
		d.carried[id] = true
	} else {
		delete(d.carried, id)
	}
	d.mu.Unlock()
	switch {
	case on && !known:
		return fmt.Errorf("direct: %s: %w", id, carrier.ErrUnknownPeer)
	case !known || on == before:
		return nil // SetPeers has removed what there was, or nothing changes
	}
	return netspace.Do(d.ns, func() error {
		ctx := context.Background()
		if on {
			if err := d.putRoutes(t, true); err != nil {
				d.mu.Lock()
				delete(d.carried, id)
				d.mu.Unlock()
				return errors.Join(err, d.putRoutes(t, false))
			}
		}
		if err := d.rules.carry(ctx, t, on); err != nil {
			return d.set(ctx) // another program has changed the table
		}
		d.unknown[0] = true
		if on {
			return nil
		}
		return d.putRoutes(t, false)
	})
}

// putRoutes sets the routes for one target.
func (d *Direct) putRoutes(t target, carried bool) error {
	br, err := d.nl.LinkByName(d.cfg.Bridge)
	if err != nil {
		return fmt.Errorf("direct: bridge %s: %w", d.cfg.Bridge, err)
	}
	var errs []error
	for _, w := range d.routesOf(t, carried, br.Attrs().Index) {
		errs = append(errs, d.routes.put(w))
	}
	return errors.Join(errs...)
}

// FilterIntact reports whether the tables of nftables are as they were set last. It takes less than a millisecond. After Close the error is
// net.ErrClosed.
func (d *Direct) FilterIntact() (intact bool, err error) {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return false, net.ErrClosed
	}
	err = netspace.Do(d.ns, func() error {
		for i, f := range tableFamilies {
			sum, err := nftsum.Of(f, tableName(d.cfg.Table))
			if d.unknown[i] && err == nil {
				d.sums[i], d.unknown[i] = sum, false
			}
			if intact, err = nftsum.Unchanged(d.sums[i], func() (nftsum.Sum, error) { return sum, err }); err != nil || !intact {
				return err
			}
		}
		return nil
	})
	return intact, err
}

// RestoreFilter sets the tables again after another program has changed them. Without them the frames go by the other carrier.
func (d *Direct) RestoreFilter(ctx context.Context) error {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return net.ErrClosed
	}
	return d.apply(ctx)
}

// FilterDrops returns how many packets the rules have dropped: those with addresses of pods that no peer has
// sent (unknown), and those to addresses of the bridge (host).
func (d *Direct) FilterDrops(ctx context.Context) (drops map[string]uint64, err error) {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return nil, net.ErrClosed
	}
	err = netspace.Do(d.ns, func() error {
		counters, err := d.rules.inet.ListCounters(ctx)
		if err != nil {
			return fmt.Errorf("direct: read the counters: %w", err)
		}
		for _, c := range counters {
			if (c.Name == dropUnknown || c.Name == dropHost) && c.Packets != nil {
				if drops == nil {
					drops = map[string]uint64{}
				}
				drops[c.Name] = *c.Packets
			}
		}
		return nil
	})
	return drops, err
}
