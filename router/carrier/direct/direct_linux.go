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
	"time"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"go4.org/netipx"
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
	setMu   sync.Mutex
	asked   []carrier.Peer        // of SetPeers
	shares  []pastShare           // of this node, the oldest first; none: not known yet
	sums    [2]nftsum.Sum         // of the tables of the bridge family and of inet, as they were set last; zero: unknown
	unknown [2]bool               // sums are those of the next look: elements were changed since
	gone    map[peer.ID]bool      // peers with counters that are none any more
	refused map[peer.ID]time.Time // when the kernel refused a route to a peer
	opened  time.Time
	wasOpen bool // as the rules have it
	ended   bool // Close was called

	// Guarded by mu, which is never held during I/O. Those who hold setMu alone change them.
	mu      sync.Mutex
	own     Node       // this node
	mac     ether.Addr // of the bridge, as the rules have it
	targets map[peer.ID]target
	carried map[peer.ID]bool
	probes  map[peer.ID]carrier.Counts // sent and received

	// alive is held for reading while nl is used without setMu; Close locks it.
	alive  sync.RWMutex
	closed bool
	// done ends with Close.
	done context.Context
	end  context.CancelFunc
}

// Times of changes. See docs/adr/0054-direct-routing.md.
const (
	// settleTime is how long a part of the ring must be this node's before packets from there are routed: until then peers may still take
	// its addresses for those of the former owner, and drop them.
	settleTime = 6 * time.Second
	// refusedTime is how long a peer is left out after the kernel has refused a route to it.
	refusedTime = time.Minute
	// openTime is how long after Open packets from addresses of no peer pass: until this node knows its peers.
	openTime = 10 * time.Second
)

// Open begins to carry nothing: it makes the port for probes and the rules, and removes what an earlier run left. The errors wrap
// carrier.ErrConfig, ErrNotOurs, ErrNoLink or ErrNoRules where a caller can react. On an error nothing is left behind.
func Open(ctx context.Context, cfg Config) (_ *Direct, err error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	d := &Direct{
		cfg: cfg, ns: netns.None(), targets: map[peer.ID]target{}, carried: map[peer.ID]bool{}, probes: map[peer.ID]carrier.Counts{},
		gone: map[peer.ID]bool{}, refused: map[peer.ID]time.Time{}, opened: time.Now(),
	}
	d.done, d.end = context.WithCancel(context.Background())
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
	d.mu.Lock()
	copy(d.mac[:], br.Attrs().HardwareAddr)
	d.mu.Unlock()
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
	for i, f := range families {
		if d.sums[i], err = nftsum.Of(f, tableName(d.cfg.Name)); err != nil {
			return err
		}
	}
	return nil
}

// families are those of the tables of nftables.
var families = [2]nftsum.Family{nftsum.Bridge, nftsum.Inet}

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

// Send implements carrier.Carrier.
func (d *Direct) Send(p carrier.Probe) error {
	d.mu.Lock()
	t, known := d.targets[p.To]
	own, mac := d.own, d.mac
	d.mu.Unlock()
	d.alive.RLock()
	defer d.alive.RUnlock()
	switch {
	case d.closed:
		return net.ErrClosed
	case !known:
		return fmt.Errorf("direct: probe to %s: %w", p.To, carrier.ErrUnknownPeer)
	}
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

// FilterIntact reports whether the tables of nftables are as they were set last. It takes less than a millisecond. After Close the error is
// net.ErrClosed.
func (d *Direct) FilterIntact() (intact bool, err error) {
	d.setMu.Lock()
	defer d.setMu.Unlock()
	if d.ended {
		return false, net.ErrClosed
	}
	err = netspace.Do(d.ns, func() error {
		for i, f := range families {
			sum, err := nftsum.Of(f, tableName(d.cfg.Name))
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
	d.alive.Lock()
	defer d.alive.Unlock()
	d.closed = true
	d.end()
	var errs []error
	if d.rules != nil && d.routes.nl != nil {
		errs = append(errs, netspace.Do(d.ns, func() error { return d.rules.remove(context.Background()) }),
			d.routes.remove(func(t int) bool { return t == d.routes.table }))
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

// PortName returns the name of the hidden port of a carrier with a routing table. It ends with the process.
func PortName(table uint16) string { return fmt.Sprintf("%s%dd", bridge.HiddenPrefix, table) }

// tableOf is the reverse of PortName for the name of a table of nftables.
func tableOf(name string) (table uint16, ok bool) {
	_, err := fmt.Sscanf(name, tableName(bridge.HiddenPrefix)+"%dd", &table)
	return table, err == nil && name == tableName(PortName(table))
}

// Remove removes what earlier runs have left on the host, whatever their tables were. What belongs to another process, which has its port,
// stays.
func Remove(ctx context.Context) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("direct: netlink: %w", err)
	}
	defer nl.Close()
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("direct: nftables: %w", err)
	}
	left := func(table int) bool {
		if table <= 0 || table > 1<<16-1 || table >= tableDefault && table <= tableLocal {
			return false
		}
		_, err := nl.LinkByName(PortName(uint16(table)))
		_, absent := errors.AsType[netlink.LinkNotFoundError](err)
		return absent
	}
	var errs []error
	for _, f := range []nftables.TableFamily{nftables.TableFamilyBridge, nftables.TableFamilyINet} {
		tables, err := conn.ListTablesOfFamily(f)
		if err != nil && !slices.ContainsFunc(noNFTables, func(e unix.Errno) bool { return errors.Is(err, e) }) {
			errs = append(errs, fmt.Errorf("direct: list the tables of nftables: %w", err))
		}
		for _, t := range tables {
			if table, ours := tableOf(t.Name); ours && left(int(table)) {
				errs = append(errs, removeTables(ctx, PortName(table)))
			}
		}
	}
	return errors.Join(append(errs, routes{nl: nl}.remove(left))...)
}

// noNFTables are the errors of a kernel without nftables, or without a family of it: there can be no tables.
var noNFTables = []unix.Errno{unix.EINVAL, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT}

// removeTables removes both tables of a carrier with a name.
func removeTables(ctx context.Context, name string) error {
	r, err := openRules(Config{Name: name})
	if err != nil {
		return err
	}
	return r.remove(ctx)
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
