package datapath

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
	"weft/router"
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

// reach knows how other nodes reach this one, and publishes it.
// See docs/adr/0017-dial-out-nodes.md.
type reach struct {
	// constant
	members Membership
	gossip  Gossip
	log     *slog.Logger
	recheck signal.Chan // makes run test at once

	mu      sync.Mutex
	links   router.Links // guarded by mu: as the router last reported
	dialOut bool         // guarded by mu: other nodes reach this one only over links that it opened
}

func newReach(members Membership, gossip Gossip, log *slog.Logger) *reach {
	return &reach{members: members, gossip: gossip, log: log, recheck: signal.New()}
}

// linksChanged publishes what the router has found out about links.
func (r *reach) linksChanged(l router.Links) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.links = l
	r.publish()
}

// setDialOut publishes whether this node can only dial out.
func (r *reach) setDialOut(dialOut bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.dialOut != dialOut {
		r.log.Info("reachability from other nodes changed", "dial-out-only", dialOut)
	}
	r.dialOut = dialOut
	r.publish()
}

// publish passes the links to gossip; mu is held.
func (r *reach) publish() {
	l := topology.Links{DialOut: r.dialOut, Broken: r.links.Broken}
	if l.DialOut {
		l.Open = r.links.Open
	}
	r.gossip.SetLinks(l)
}

// isDialOut reports whether this node can only dial out, as far as it knows.
func (r *reach) isDialOut() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dialOut
}

// run tests periodically, until ctx ends, whether other nodes reach this one. If they do not, it keeps sessions over which they do.
// own returns the address by which other nodes know this one.
func (r *reach) run(ctx context.Context, engine *router.Engine, own func() netip.Addr) {
	engine.SetReachability(r.isDialOut(), own())
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
			r.setDialOut(dialOut)
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
func (r *reach) test(ctx context.Context, engine *router.Engine) (dialOut, known bool) {
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
func (r *reach) keepalive() []peer.ID {
	if !r.isDialOut() {
		return nil
	}
	return r.nearest(keepalivePeers)
}

// nearest returns up to most peers that other nodes reach, the nearest first.
func (r *reach) nearest(most int) (ids []peer.ID) {
	members := slices.DeleteFunc(slices.Clone(r.members.Members()), func(m Member) bool { return m.DialOut })
	slices.SortStableFunc(members, func(a, b Member) int { return int(a.RTT.Round(time.Millisecond) - b.RTT.Round(time.Millisecond)) })
	for _, m := range members[:min(len(members), most)] {
		ids = append(ids, m.ID)
	}
	return ids
}
