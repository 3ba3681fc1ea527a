package direct

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/netspace"
	"weft/internal/nflog"
	"weft/internal/nftsum"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/tap"
	"weft/tap/bridge"
)

var _ carrier.Carrier = (*Direct)(nil)

// Direct routes packets of pods to peers on the same link. Its methods may be called from any goroutine; they work in the network namespace
// in which Open was called.
type Direct struct {
	// Constant after Open.
	cfg    Config
	ns     netns.NsHandle
	nl     *netlink.Handle
	port   tap.Device // where probes enter the bridge
	log    *nflog.Conn
	rules  *rules
	routes routes
	uplink uplink

	// Owned by the caller of Receive.
	waiting []carrier.Probe
	parts   collector

	// Atomic.
	bad atomic.Uint64 // packets to the address of probes that are none

	// Guarded by setMu, as a change of rules takes milliseconds.
	setMu sync.Mutex
	own   Node             // as the rules have it
	sums  [2]nftsum.Sum    // of the tables of the bridge family and of inet, as they were set last; zero: unknown
	mac   ether.Addr       // of the bridge, as the rules have it
	ended bool             // Close was called
	gone  map[peer.ID]bool // peers with counters that are none any more

	// Guarded by mu, which is never held during I/O.
	mu      sync.Mutex
	asked   []carrier.Peer // of SetPeers
	targets map[peer.ID]target
	carried map[peer.ID]bool
	probes  map[peer.ID]carrier.Counts // sent and received
	closed  bool
}

// Open begins to carry nothing: it makes the port for probes and the rules, and removes what an earlier run left. The errors wrap
// carrier.ErrConfig, ErrNotOurs, ErrNoLink or ErrNoRules where a caller can react. On an error nothing is left behind.
func Open(ctx context.Context, cfg Config) (_ *Direct, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &Direct{
		cfg: cfg, ns: netns.None(), targets: map[peer.ID]target{}, carried: map[peer.ID]bool{}, probes: map[peer.ID]carrier.Counts{},
		gone: map[peer.ID]bool{},
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, d.Close())
		}
	}()
	if d.ns, err = netns.Get(); err != nil {
		return nil, fmt.Errorf("direct: this network namespace: %w", err)
	}
	if d.nl, err = netlink.NewHandle(unix.NETLINK_ROUTE); err != nil {
		return nil, fmt.Errorf("direct: netlink: %w", err)
	}
	found := routes{nl: d.nl, bridge: cfg.Bridge, table: int(cfg.Table)}
	if err := found.check(); err != nil {
		return nil, err
	}
	if d.uplink, err = findUplink(d.nl, cfg.Local); err != nil {
		return nil, err
	}
	if d.rules, err = openRules(cfg); err != nil {
		return nil, err
	}
	d.routes = found
	if err := d.rules.remove(ctx); err != nil {
		return nil, err
	}
	if d.port, err = tap.Open(tap.Config{Name: cfg.Name, MTU: cfg.MTU, Queues: 1, Plain: true}); err != nil {
		return nil, fmt.Errorf("direct: %w", err)
	}
	if err := d.plug(); err != nil {
		return nil, err
	}
	if d.log, err = nflog.Open(nflog.Config{Group: cfg.Group, Length: copied, AtOnce: true, NetNS: int(d.ns)}); err != nil {
		return nil, fmt.Errorf("direct: %w", err)
	}
	return d, d.set(ctx)
}

// plug makes the port for probes one of the bridge, as it is now, and notes the address of the bridge. It is called in the namespace.
func (d *Direct) plug() error {
	br, err := d.nl.LinkByName(d.cfg.Bridge)
	if err != nil {
		return fmt.Errorf("direct: bridge %s: %w", d.cfg.Bridge, err)
	}
	copy(d.mac[:], br.Attrs().HardwareAddr)
	if _, err := bridge.PlugHidden(d.cfg.Name, br.Attrs().Index, true); err != nil {
		return fmt.Errorf("direct: %w", err)
	}
	return nil
}

// SetPeers implements carrier.Carrier. It reaches the peers that take part, and to which the host sends over the underlay interface without
// a router.
func (d *Direct) SetPeers(ctx context.Context, peers []carrier.Peer) (reachable []carrier.Peer, err error) {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return nil, net.ErrClosed
	}
	d.mu.Lock()
	d.asked = slices.Clone(peers)
	d.mu.Unlock()
	d.own = d.cfg.Nodes.Node(d.cfg.Self)
	targets := d.find(peers)
	for _, t := range targets {
		reachable = append(reachable, t.Peer)
	}
	d.use(targets)
	return reachable, d.apply(ctx)
}

// find returns what is known about those of peers that can be reached, sorted by ID.
func (d *Direct) find(peers []carrier.Peer) (targets []target) {
	addrs := map[netip.Addr]bool{d.cfg.Local: true}
	probes := map[netip.Addr]bool{}
	for _, a := range d.own.Probes {
		probes[a] = true
	}
	for _, p := range slices.SortedFunc(slices.Values(peers), func(a, b carrier.Peer) int { return a.ID.Compare(b.ID) }) {
		p.Addr = p.Addr.Unmap()
		t := newTarget(p, d.own, d.cfg.Nodes.Node(p.ID))
		if p.ID.IsZero() || p.ID == d.cfg.Self || !usable(p.Addr) || addrs[p.Addr] || len(t.families()) == 0 || !t.owns(probes) ||
			!d.uplink.onLink(d.nl, p.Addr) {
			continue
		}
		addrs[p.Addr] = true
		for _, a := range t.node.Probes {
			probes[a] = true
		}
		targets = append(targets, t)
	}
	return targets
}

// owns reports whether the addresses of the peer's probes are its own: in its share, and none of used.
func (t target) owns(used map[netip.Addr]bool) bool {
	return !slices.ContainsFunc(t.node.Probes, func(a netip.Addr) bool {
		return used[a] || !slices.ContainsFunc(t.node.Share, func(p netip.Prefix) bool { return p.Contains(a) })
	})
}

// use makes targets those of the carrier. Peers that are not among them, or have another address, are not carried any more. setMu is held.
func (d *Direct) use(targets []target) {
	d.mu.Lock()
	defer d.mu.Unlock()
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
		if !stays || now.Peer != before.Peer || now.hops != before.hops {
			delete(d.carried, id)
		}
	}
	d.targets = next
}

// state returns the rules as they are to be.
func (d *Direct) state() ruleset {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := ruleset{mac: d.mac, uplink: d.uplink.name, own: d.own, carried: map[peer.ID]bool{}}
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

// set is apply in the namespace. What is added to the routes comes before the rules that need it, what is removed after them.
func (d *Direct) set(ctx context.Context) error {
	if err := d.plug(); err != nil {
		return err
	}
	s := d.state()
	if err := d.setRoutes(s); err != nil {
		return err
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
	return d.sum()
}

// setRoutes sets the routes to the probes of all targets, and to the shares of those that are carried. The shares of others are behind the
// bridge: a host without a route to the source of a packet drops it, unless rp_filter is off, and peers do not move at the same moment.
func (d *Direct) setRoutes(s ruleset) error {
	br, err := d.nl.LinkByName(d.cfg.Bridge)
	if err != nil {
		return fmt.Errorf("direct: bridge %s: %w", d.cfg.Bridge, err)
	}
	var want []route
	for _, t := range s.targets {
		for _, f := range t.families() {
			want = append(want, route{hostPrefix(t.node.probe(f)), t.hops[f], d.uplink.index})
		}
		for _, p := range t.share() {
			if p.IsSingleIP() && p.Addr() == t.node.probe(familyOf(p.Addr())) {
				continue
			}
			if s.carried[t.ID] {
				want = append(want, route{p, t.hops[familyOf(p.Addr())], d.uplink.index})
			} else {
				want = append(want, route{dst: p, link: br.Attrs().Index})
			}
		}
	}
	return d.routes.set(want)
}

// sum notes the checksums of the tables.
func (d *Direct) sum() (err error) {
	name := tableName(d.cfg.Name)
	for i, f := range []nftsum.Family{nftsum.Bridge, nftsum.Inet} {
		if d.sums[i], err = nftsum.Of(f, name); err != nil {
			return err
		}
	}
	return nil
}

// Carry implements carrier.Carrier. Pods' own addresses stay where the bridge knows them, so it has no use for macs.
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
	ctx := context.Background()
	return netspace.Do(d.ns, func() error {
		if !on {
			err := d.rules.carry(ctx, t, false)
			if err != nil {
				return d.set(ctx) // another program has changed the table
			}
			return errors.Join(d.setRoutes(d.state()), d.sum())
		}
		if err := d.setRoutes(d.state()); err != nil {
			return err
		}
		if err := d.rules.carry(ctx, t, true); err != nil {
			return d.set(ctx)
		}
		return d.sum()
	})
}

// Send implements carrier.Carrier.
func (d *Direct) Send(p carrier.Probe) error {
	d.mu.Lock()
	t, known := d.targets[p.To]
	closed := d.closed
	d.mu.Unlock()
	switch {
	case closed:
		return net.ErrClosed
	case !known:
		return fmt.Errorf("direct: probe to %s: %w", p.To, carrier.ErrUnknownPeer)
	}
	d.setMu.Lock()
	own, mac := d.own, d.mac
	d.setMu.Unlock()
	var frames []tap.Frame
	for _, v := range variants(t.families()) {
		f, err := packet{own.probe(v.family), t.node.probe(v.family), v, p}.frame(mac, d.cfg.MTU)
		if err != nil {
			return err
		}
		frames = append(frames, tap.Frame{Data: f})
	}
	if _, err := d.port.Queues()[0].WriteFrames(frames); err != nil {
		return fmt.Errorf("direct: send a probe: %w", err)
	}
	d.countProbe(p.To, func(c *carrier.Counts) { c.TxFrames, c.TxBytes = c.TxFrames+1, c.TxBytes+d.probeLen() })
	return nil
}

// probeLen returns the length of a packet of a probe as a frame.
func (d *Direct) probeLen() uint64 { return uint64(d.cfg.MTU + ether.HeaderLen) }

// countProbe counts a probe as a frame, in however many packets it was.
func (d *Direct) countProbe(id peer.ID, count func(*carrier.Counts)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := d.probes[id]
	count(&c)
	d.probes[id] = c
}

// Receive implements carrier.Carrier.
func (d *Direct) Receive() (carrier.Probe, error) {
	for len(d.waiting) == 0 {
		packets, err := d.log.Receive()
		if err != nil {
			return carrier.Probe{}, err
		}
		for _, p := range packets {
			if probe, ok := d.received(p.Data); ok {
				d.waiting = append(d.waiting, probe)
			}
		}
	}
	p := d.waiting[0]
	d.waiting = d.waiting[1:]
	return p, nil
}

// received takes a packet to the address of probes, and returns the probe if it is complete now.
func (d *Direct) received(b []byte) (carrier.Probe, bool) {
	p, err := parsePacket(b)
	if err != nil {
		d.bad.Add(1)
		return carrier.Probe{}, false
	}
	d.mu.Lock()
	t, known := d.targets[p.probe.From]
	d.parts.keepOnly(func(id peer.ID) bool { _, ok := d.targets[id]; return ok })
	d.mu.Unlock()
	// An address translator between the nodes would have changed the source.
	if !known || p.src != t.node.probe(p.variant.family) {
		d.bad.Add(1)
		return carrier.Probe{}, false
	}
	if !d.parts.add(p, bits(t.families())) {
		return carrier.Probe{}, false
	}
	d.countProbe(t.ID, func(c *carrier.Counts) { c.RxFrames, c.RxBytes = c.RxFrames+1, c.RxBytes+d.probeLen() })
	return p.probe, true
}

// Ensure implements carrier.Carrier. It also follows the shares of the nodes.
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
	if intact && !d.follow() {
		return netspace.Do(d.ns, func() error {
			mac := d.mac
			if err := d.plug(); err != nil || d.mac != mac {
				return errors.Join(err, d.set(ctx))
			}
			return d.setRoutes(d.state())
		})
	}
	return d.apply(ctx)
}

// follow takes what the nodes have and publish now, and reports whether that changes anything. setMu is held.
func (d *Direct) follow() (changed bool) {
	own := d.cfg.Nodes.Node(d.cfg.Self)
	changed = !slices.Equal(own.Share, d.own.Share) || !slices.Equal(own.Probes, d.own.Probes)
	d.own = own
	d.mu.Lock()
	asked, before := d.asked, d.targets
	d.mu.Unlock()
	var kept []target
	for _, t := range d.find(asked) {
		old, known := before[t.ID]
		if !known {
			continue // the caller of SetPeers does not know that it can be reached
		}
		changed = changed || !old.same(t)
		kept = append(kept, t)
	}
	changed = changed || len(kept) != len(before)
	d.use(kept)
	return changed
}

// FilterIntact reports whether the tables of nftables are as they were set last. It takes less than a millisecond. After Close the error is
// net.ErrClosed.
func (d *Direct) FilterIntact() (intact bool, err error) {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return false, net.ErrClosed
	}
	name := tableName(d.cfg.Name)
	err = netspace.Do(d.ns, func() error {
		for i, f := range []nftsum.Family{nftsum.Bridge, nftsum.Inet} {
			intact, err = nftsum.Unchanged(d.sums[i], func() (nftsum.Sum, error) { return nftsum.Of(f, name) })
			if err != nil || !intact {
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

// FilterDrops returns how many packets the rules have dropped: those with addresses of pods that no peer has sent (unknown).
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
			if c.Name == dropUnknown && c.Packets != nil {
				drops = map[string]uint64{dropUnknown: *c.Packets}
			}
		}
		return nil
	})
	return drops, err
}

// Keep implements carrier.Carrier. Routes never outlive the process that proves them: the frames go by the other carrier, which is kept.
func (d *Direct) Keep() {}

// Close implements carrier.Carrier: it removes the rules, the routes and the port for probes.
func (d *Direct) Close() error {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return nil
	}
	d.ended = true
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	var errs []error
	if d.rules != nil && d.routes.nl != nil {
		errs = append(errs, netspace.Do(d.ns, func() error { return d.rules.remove(context.Background()) }))
		_, err := d.routes.remove()
		errs = append(errs, err)
	}
	if d.port != nil {
		errs = append(errs, d.port.Close())
	}
	if d.log != nil {
		errs = append(errs, d.log.Close())
	}
	if d.nl != nil {
		d.nl.Close()
	}
	if d.ns.IsOpen() {
		errs = append(errs, d.ns.Close())
	}
	return errors.Join(errs...)
}

// Remove removes what an earlier run has left on the host of a carrier of that name and table, and reports whether there was anything.
func Remove(ctx context.Context, name, bridge string, table uint16) (removed bool, err error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return false, fmt.Errorf("direct: netlink: %w", err)
	}
	defer nl.Close()
	for _, f := range []nftsum.Family{nftsum.Bridge, nftsum.Inet} {
		if _, err := nftsum.Of(f, tableName(name)); err == nil {
			removed = true
		}
	}
	if removed {
		r, err := openRules(Config{Name: name})
		if err == nil {
			err = r.remove(ctx)
		}
		if err != nil {
			return false, err
		}
	}
	routed, err := routes{nl: nl, bridge: bridge, table: int(table)}.remove()
	return removed || routed, err
}

// OwnLink returns the link-local IPv6 address of the interface with an address of this host; not valid: it has none. The error wraps
// ErrNoLink.
func OwnLink(local netip.Addr) (netip.Addr, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("direct: netlink: %w", err)
	}
	defer nl.Close()
	u, err := findUplink(nl, local)
	return u.local, err
}
