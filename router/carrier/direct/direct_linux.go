package direct

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

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
	if d.port, err = tap.Open(tap.Config{Name: PortName(cfg.Table), MTU: cfg.MTU, Queues: 1, Plain: true}); err != nil {
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
	if _, err := bridge.PlugHidden(d.port.Name(), br.Attrs().Index, true); err != nil {
		return fmt.Errorf("direct: %w", err)
	}
	return nil
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
