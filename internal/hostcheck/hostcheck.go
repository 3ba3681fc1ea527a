// Package hostcheck watches what other programs of the host do to the traffic of a node: rules of packet filters, routes, and the
// rules for published ports of containers. It reports what is lost as conditions, and restores published ports.
//
//	hostcheck.go  the loop: notifications of the kernel, and periodic looks
//	look.go       the looks, and what they have found
//	findings.go   what is wrong, for the status
//
// Whether pods reach each other is not only derived from the rules: a probe passes the bridge as a frame of a pod does (package
// podprobe). The rules then explain why it was dropped.
//
// See docs/adr/0033-what-the-host-does-to-pods.md.
package hostcheck

import (
	"context"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/hostfilter"
	"weft/internal/hostports"
	"weft/internal/hostwatch"
	"weft/internal/podprobe"
	"weft/internal/settings"
)

// Periods of the looks.
const (
	tick          = time.Second
	probePeriod   = 2 * time.Second // rules of iptables-legacy report no change
	filtersPeriod = time.Minute     // of nftables, which reports changes
	legacyPeriod  = 3 * time.Second // of iptables-legacy, which does not; it is read without a program
	routesPeriod  = 30 * time.Second
	// neighborsPeriod is that of looks at the counters of the tables of neighbors.
	neighborsPeriod = 10 * time.Second
)

// share bounds the CPU time that looks need: the next one waits so many times as long as the last one took. Hosts have rulesets of
// megabytes. A probe mostly waits, and needs no bound.
const share = 20

// Underlay is what the checker needs to know about the network of the nodes. It may be called from any goroutine.
type Underlay interface {
	// SelfAddr returns the address of this node.
	SelfAddr() netip.Addr
	// PeerAddrs returns the addresses of the other nodes.
	PeerAddrs() []netip.Addr
}

// Containers knows which containers are attached. It may be called from any goroutine.
type Containers interface {
	// Attached reports whether an interface of a container has a lease.
	Attached(network, containerID, ifname string) bool
}

// Exposure knows what was asked for packets from outside the overlay. The method may be called from any goroutine and must not wait.
type Exposure interface {
	// LetsIn reports whether clients outside the overlay may reach pods through this host.
	LetsIn() bool
}

// Config is what a Checker is made of. All fields are required.
type Config struct {
	Settings   settings.Config
	Sealed     bool   // the node has a secret
	MTU        int    // of the bridge, in bytes
	CNICache   string // see hostports.CacheDir
	Underlay   Underlay
	Containers Containers
	Exposure   Exposure
	Logger     *slog.Logger
}

// Checker watches the host. New makes it, and Run runs it.
type Checker struct {
	cfg Config
	log *slog.Logger

	state atomic.Pointer[state] // never nil; replaced as a whole by Run

	// owned by Run
	prober    *podprobe.Prober      // nil: could not be opened
	nft       hostfilter.Ruleset    // as it was read last
	nftErr    error                 // why it could not be read
	overflows map[string]*overflows // of the tables of neighbors, by family
}

// New returns a Checker that is idle.
func New(cfg Config) *Checker {
	c := &Checker{cfg: cfg, log: cfg.Logger, overflows: map[string]*overflows{}}
	c.state.Store(&state{})
	return c
}

// Run looks at the host until ctx ends. The bridge should exist.
func (c *Checker) Run(ctx context.Context) {
	group, ctx := errgroup.WithContext(ctx)
	filters := c.watch(ctx, group, hostwatch.Filters)
	routes := c.watch(ctx, group, hostwatch.Links|hostwatch.Addresses|hostwatch.Routes)
	group.Go(func() error { c.loop(ctx, filters, routes); return nil })
	_ = group.Wait()
	if c.prober != nil {
		if err := c.prober.Close(); err != nil {
			c.log.Warn("cannot remove the ports of probes", "err", err)
		}
	}
}

// watch subscribes to changes; nil where the kernel does not report them.
func (c *Checker) watch(ctx context.Context, group *errgroup.Group, kinds hostwatch.Kind) <-chan struct{} {
	w, err := hostwatch.Open(kinds)
	if err != nil {
		c.log.Info("changes of the host are found periodically only", "err", err)
		return nil
	}
	group.Go(func() error {
		if err := w.Run(ctx); err != nil {
			c.log.Warn("changes of the host are found periodically only", "err", err)
		}
		return nil
	})
	return w.Changed()
}

// loop takes the looks that are due, at most one of each kind a second.
func (c *Checker) loop(ctx context.Context, filters, routes <-chan struct{}) {
	probe, table := pace{period: probePeriod}, pace{period: routesPeriod, share: share}
	neighbors := pace{period: neighborsPeriod, share: share}
	rules, legacy := pace{period: filtersPeriod, share: share}, pace{period: legacyPeriod, share: share}
	timer := time.NewTicker(tick)
	defer timer.Stop()
	for {
		now := time.Now()
		if probe.due(now) {
			failed := c.lookByProbe(ctx)
			probe.took(now, time.Now())
			rules.changed = rules.changed || failed
		}
		if rules.due(time.Now()) {
			start := time.Now()
			c.nft, c.nftErr = hostfilter.ReadNFT(ctx)
			rules.took(start, time.Now())
			legacy.changed = true
		}
		if legacy.due(time.Now()) {
			start := time.Now()
			again := c.lookAtFilters(ctx, start)
			legacy.took(start, time.Now())
			legacy.changed = again
		}
		if table.due(time.Now()) {
			start := time.Now()
			c.lookAtRoutes()
			table.took(start, time.Now())
		}
		if neighbors.due(time.Now()) {
			start := time.Now()
			c.lookAtNeighbors("/proc", start)
			neighbors.took(start, time.Now())
		}
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				return
			case <-filters:
				probe.changed, rules.changed = true, true
			case <-routes:
				table.changed = true
			case <-timer.C:
				waiting = false
			}
		}
	}
}

// pace decides when a look is due: after a change and periodically, but not before a multiple of the time that the last one took.
type pace struct {
	period     time.Duration
	share      time.Duration // the multiple; 0: none
	changed    bool
	last, next time.Time // when the last one began, and before which no other one begins
}

func (p *pace) due(now time.Time) bool {
	return !now.Before(p.next) && (p.changed || now.Sub(p.last) >= p.period)
}

// took records a look.
func (p *pace) took(begin, end time.Time) {
	p.changed, p.last, p.next = false, begin, end.Add(p.share*end.Sub(begin))
}

// Clear removes the ports that were published again, for a node that leaves.
func (c *Checker) Clear(ctx context.Context) error { return hostports.Publish(ctx, nil) }
