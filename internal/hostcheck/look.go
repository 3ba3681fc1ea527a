package hostcheck

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"weft/internal/health"
	"weft/internal/hostfilter"
	"weft/internal/hostnet"
	"weft/internal/hostports"
	"weft/internal/hostroutes"
	"weft/internal/podprobe"
)

// state is what the last looks have found. It is immutable.
type state struct {
	probes    []podprobe.Result // nil: not known
	waits     bool              // the bridge does not forward the frames of new ports yet
	losses    []hostfilter.Loss
	conflicts []hostroutes.Conflict
	hidden    []netip.Addr
	full      []hostnet.NeighborTable // that have overflowed lately, and how often
	// flushed are the ports of containers that another program has removed; portsErr is why they are not published again.
	flushed  []hostports.Port
	portsErr error
	// suspects are ports without rules, and when that was first seen: their containers may just be on their way.
	suspects map[hostports.Port]time.Time
}

// update replaces the state by a changed copy.
func (c *Checker) update(change func(*state)) {
	next := *c.state.Load()
	change(&next)
	c.state.Store(&next)
}

// lookByProbe sends probes. failed reports that one was dropped which passed before.
func (c *Checker) lookByProbe(ctx context.Context) (failed bool) {
	results, err := c.probe(ctx)
	if err != nil && ctx.Err() == nil {
		c.log.Debug("cannot probe the way between pods", "err", err)
	}
	before := c.state.Load().probes
	c.update(func(s *state) { s.probes, s.waits = results, errors.Is(err, podprobe.ErrWaits) })
	return slices.ContainsFunc(results, dropped) && !slices.Equal(before, results)
}

func dropped(r podprobe.Result) bool { return !r.Passed }

// probe opens the ports for probes if there are none, and probes.
func (c *Checker) probe(ctx context.Context) (_ []podprobe.Result, err error) {
	if c.prober == nil {
		s := &c.cfg.Settings
		c.prober, err = podprobe.Open(podprobe.Config{Bridge: s.Bridge, Port: s.Port, MTU: c.cfg.MTU, Ranges: s.Ranges})
		if err != nil {
			return nil, err
		}
	}
	return c.prober.Probe(ctx)
}

// lookAtFilters judges the rules of nftables, as they were read last, and those of iptables-legacy, and restores published ports.
// again requests another look soon.
func (c *Checker) lookAtFilters(ctx context.Context, now time.Time) (again bool) {
	legacy, err := hostfilter.ReadLegacy()
	rules := hostfilter.Ruleset{Chains: slices.Concat(c.nft.Chains, legacy.Chains)}
	if err = errors.Join(c.nftErr, err); err != nil {
		c.log.Debug("cannot read all packet filters of the host", "err", err)
	}
	losses := hostfilter.Assess(rules, c.host())
	c.update(func(s *state) { s.losses = losses })
	if err != nil {
		return false // a port that is not seen may be there
	}
	return c.lookAtPorts(ctx, rules, now)
}

// host describes the node for the judgment of the rules.
func (c *Checker) host() hostfilter.Host {
	s := &c.cfg.Settings
	self := c.cfg.Underlay.SelfAddr()
	h := hostfilter.Host{
		Bridge: s.Bridge, Ranges: s.Ranges, Outside: !s.NoMasquerade, Inward: c.cfg.Exposure.LetsIn(), Self: self,
		Uplink: hostnet.LinkOf(self),
	}
	h.TCP, h.UDP = s.OpenPorts(c.cfg.Sealed)
	h.Filtered4, h.Filtered6 = hostfilter.Filtered(s.Bridge)
	h.Exposed = hostnet.Exposed(s.Bridge, s.Ranges)
	return h
}

// portPatience is how long a port is without rules before it is published again. When a container is removed, its rules go first.
const portPatience = 3 * time.Second

// lookAtPorts publishes the ports of containers that have no rules for some time, and no others.
func (c *Checker) lookAtPorts(ctx context.Context, rules hostfilter.Ruleset, now time.Time) (again bool) {
	ports, err := hostports.ReadCache(c.cfg.CNICache)
	if err != nil {
		c.log.Debug("cannot read which ports are published", "err", err)
		return false
	}
	ports = slices.DeleteFunc(ports, func(p hostports.Port) bool {
		return !c.cfg.Containers.Attached(p.Network, p.ContainerID, p.Ifname)
	})
	before := c.state.Load()
	suspects := map[hostports.Port]time.Time{}
	var flushed []hostports.Port
	for _, p := range hostports.Missing(rules, ports, c.cfg.Underlay.SelfAddr()) {
		since, known := before.suspects[p]
		if !known {
			since = now
		}
		suspects[p] = since
		if now.Sub(since) >= portPatience {
			flushed = append(flushed, p)
		} else {
			again = true
		}
	}
	slices.SortFunc(flushed, func(a, b hostports.Port) int { return int(a.HostPort) - int(b.HostPort) })
	have := slices.ContainsFunc(rules.Chains, func(chain *hostfilter.Chain) bool { return chain.Table == hostports.Table })
	err = before.portsErr
	switch want := len(flushed) > 0; {
	case want && (!have || err != nil || !slices.Equal(before.flushed, flushed)):
		err = hostports.Publish(ctx, flushed)
		c.log.Warn("another program removed ports of containers, which are published again", "ports", hostports.Names(flushed), "err", err)
	case have && !want && !again: // the containers are gone, or their own rules are back
		err = hostports.Publish(ctx, nil)
	}
	c.update(func(s *state) { s.suspects, s.flushed, s.portsErr = suspects, flushed, err })
	return again
}

// lookAtRoutes judges the routes to the range, if the host has an address in it. Otherwise it sends nothing to pods.
func (c *Checker) lookAtRoutes() {
	s := &c.cfg.Settings
	var conflicts []hostroutes.Conflict
	var hidden []netip.Addr
	exposed, err := hostnet.AddrsOf(s.Bridge)
	if err != nil {
		c.log.Debug("cannot read the addresses of the bridge", "err", err)
		return
	}
	if !s.AllowOverlap && len(exposed) > 0 {
		tables, err := hostroutes.Read(s.Ranges)
		if err != nil {
			c.log.Debug("cannot read the routes of the host", "err", err)
			return
		}
		for _, rng := range s.Ranges {
			if slices.ContainsFunc(exposed, rng.Contains) {
				conflicts = append(conflicts, hostroutes.Elsewhere(tables, rng, s.Bridge)...)
				hidden = append(hidden, hostroutes.Hidden(tables, rng, s.Bridge, c.cfg.Underlay.PeerAddrs())...)
			}
		}
	}
	c.update(func(st *state) { st.conflicts, st.hidden = conflicts, hidden })
}

// overflows is how often a table was full: before the first look, and since then.
type overflows struct {
	first uint64
	since health.Lately
}

// lookAtNeighbors finds out which tables of neighbors have overflowed lately. Their counters are as old as the host: only growth counts.
func (c *Checker) lookAtNeighbors(proc string, now time.Time) {
	tables, err := hostnet.NeighborTables(proc)
	if err != nil {
		c.log.Debug("cannot read the tables of neighbors", "err", err)
		return
	}
	var full []hostnet.NeighborTable
	for _, t := range tables {
		o := c.overflows[t.Family]
		if o == nil || t.Overflows < o.first {
			o = &overflows{first: t.Overflows}
			c.overflows[t.Family] = o
		}
		if t.Overflows = o.since.Growth(t.Overflows-o.first, now); t.Overflows > 0 {
			full = append(full, t)
		}
	}
	c.update(func(s *state) { s.full = full })
}
