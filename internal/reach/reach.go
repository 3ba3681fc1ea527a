// Package reach finds out whether other nodes reach this one: it asks some of them to send a datagram from a port to which nothing was sent
// before (a dial-back). It publishes the result with the state of links. See docs/adr/0017-dial-out-nodes.md.
package reach

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/peer"
	"weft/internal/signal"
	"weft/mesh/topology"
)

// Periods of the reachability test.
const (
	reachFirst  = time.Second      // between attempts until there is an answer
	reachInside = 30 * time.Second // while the node can only dial out: that may change
	reachOpen   = 10 * time.Minute
)

// reachHelpers is how many peers are asked for a dial-back, until one succeeds; keepalivePeers is the number of sessions that a
// node keeps which can only dial out.
const (
	reachHelpers   = 3
	keepalivePeers = 3
)

// Member is what Reach knows about another node that is alive.
type Member struct {
	ID      peer.ID
	DialOut bool          // it is reached only over links that it opened
	RTT     time.Duration // 0: not known
}

// Host is the node around Reach. Its methods may be called from any goroutine, and do not call Reach.
type Host interface {
	// Members returns the other nodes that are alive. The slice belongs to the caller.
	Members() []Member
	// SetLinks publishes how other nodes reach this one.
	SetLinks(topology.Links)
}

// Router asks for dial-backs and keeps sessions; *router.Engine does.
type Router interface {
	RequestDialBack(ctx context.Context, of peer.ID) (came bool, err error)
	SetReachability(dialOut bool, own netip.Addr)
	KeepSessions(with []peer.ID)
}

// Reach knows how other nodes reach this one. Methods may be called from any goroutine.
type Reach struct {
	// constant
	host    Host
	log     *slog.Logger
	recheck signal.Chan // makes Run test at once

	mu      sync.Mutex
	broken  []peer.ID // guarded by mu: as the router last reported
	open    []peer.ID // guarded by mu: the same
	dialOut bool      // guarded by mu: other nodes reach this one only over links that it opened
}

// New returns a Reach for a node that others reach, as far as it knows.
func New(host Host, log *slog.Logger) *Reach {
	return &Reach{host: host, log: log, recheck: signal.New()}
}

// Recheck makes Run test at once.
func (r *Reach) Recheck() { r.recheck.Set() }

// LinksChanged publishes what the router has found out: the peers that do not answer directly, and those that do.
func (r *Reach) LinksChanged(broken, open []peer.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.broken, r.open = broken, open
	r.publish()
}

// SetDialOut publishes whether this node can only dial out.
func (r *Reach) SetDialOut(dialOut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dialOut != dialOut {
		r.log.Info("reachability from other nodes changed", "dial-out-only", dialOut)
	}
	r.dialOut = dialOut
	r.publish()
}

// publish passes the links to gossip; mu is held.
func (r *Reach) publish() {
	l := topology.Links{DialOut: r.dialOut, Broken: r.broken}
	if l.DialOut {
		l.Open = r.open
	}
	r.host.SetLinks(l)
}

// DialOut reports whether this node can only dial out, as far as it knows.
func (r *Reach) DialOut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dialOut
}

// Run tests periodically, until ctx ends, whether other nodes reach this one. If they do not, it keeps sessions over which they do.
// own returns the address by which other nodes know this one.
func (r *Reach) Run(ctx context.Context, engine Router, own func() netip.Addr) {
	engine.SetReachability(r.DialOut(), own())
	for pause := reachFirst; ; {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		case <-r.recheck.C():
			pause = reachFirst
		}
		dialOut, known := r.test(ctx, engine)
		if ctx.Err() != nil {
			return
		}
		if known {
			r.SetDialOut(dialOut)
			engine.SetReachability(dialOut, own())
			pause = reachOpen
			if dialOut {
				pause = reachInside
			}
		}
		engine.KeepSessions(r.keepalive())
	}
}

// test asks peers for a dial-back. known is false if none of them could be asked.
func (r *Reach) test(ctx context.Context, engine Router) (dialOut, known bool) {
	for _, id := range r.nearest(reachHelpers) {
		came, err := engine.RequestDialBack(ctx, id)
		switch {
		case err != nil:
		case came:
			return false, true
		default:
			dialOut, known = true, true
		}
	}
	return dialOut, known
}

// keepalive returns the peers with which sessions are kept: none if other nodes reach this one.
func (r *Reach) keepalive() []peer.ID {
	if !r.DialOut() {
		return nil
	}
	return r.nearest(keepalivePeers)
}

// nearest returns up to most peers that other nodes reach, the nearest first.
func (r *Reach) nearest(most int) (ids []peer.ID) {
	members := slices.DeleteFunc(r.host.Members(), func(m Member) bool { return m.DialOut })
	slices.SortStableFunc(members, func(a, b Member) int { return int(a.RTT.Round(time.Millisecond) - b.RTT.Round(time.Millisecond)) })
	for _, m := range members[:min(len(members), most)] {
		ids = append(ids, m.ID)
	}
	return ids
}
