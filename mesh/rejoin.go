package mesh

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"weft/mesh/mismatch"
)

const (
	// firstRejoin is within which time after the start a node first dials the members of earlier runs. It is short, since
	// pods have no network until a restarted node has found the others, and random, so that nodes that start together do
	// not all dial at once.
	firstRejoin = 200 * time.Millisecond
	// rejoinPause is the pause after the first attempt; it grows like those between attempts at a target.
	rejoinPause = 2 * time.Second
	// rejoinBatch is how many members are dialed in one attempt.
	rejoinBatch = 3
	// repairPause is how long no broadcast must have been dropped before repair exchanges states. It does so after repairWait in any case.
	repairPause = 4 * time.Second
	repairWait  = 20 * time.Second
)

// catchUpPauses are the pauses before the exchanges of catchUp.
var catchUpPauses = []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second}

// rejoin dials, with growing pauses, members that are known but not alive: those of earlier runs, and those on the other
// side of a partition, to which memberlist sends nothing any more after half a minute. It returns when ctx ends.
func (d *dialer) rejoin(ctx context.Context) {
	pause := rejoinPause
	for next := rand.N(firstRejoin); ; next = jittered(pause) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
		case <-d.rejoinNow.C():
			pause = rejoinPause
		}
		lost := d.lost()
		if len(lost) == 0 {
			pause = rejoinPause
			continue
		}
		pause = longer(pause)
		rand.Shuffle(len(lost), func(i, j int) { lost[i], lost[j] = lost[j], lost[i] })
		for _, addr := range lost[:min(rejoinBatch, len(lost))] {
			err := d.exchange(ctx, addr)
			if err == nil {
				pause = rejoinPause
			} else if e, ok := errors.AsType[*mismatch.Error](err); ok {
				d.mesh.keyMismatches.Record(e.Addr.Addr(), e.Reason, time.Now())
			}
		}
	}
}

// lost returns the gossip addresses of members that were seen, have not left, and are not alive.
func (d *dialer) lost() []netip.AddrPort {
	var lost []netip.AddrPort
	for id, text := range d.mesh.cfg.Targets.AllSeen() {
		if state, known := d.mesh.roster.state(id); known && state != StateDead || id == d.mesh.cfg.Identity.ID {
			continue
		}
		if addr, err := netip.ParseAddrPort(text); err == nil && addr != d.mesh.at.Load().addr {
			lost = append(lost, addr)
		}
	}
	return lost
}

// catchUp exchanges states with a few random members soon after the start. When many nodes start at once, each repeats
// a broadcast only as often as suits the few members that it knows by then, so some nodes miss it. Without catchUp they
// would learn of the new members at the next push/pull, half a minute later or more.
func (d *dialer) catchUp(ctx context.Context) {
	for _, pause := range catchUpPauses {
		select {
		case <-ctx.Done():
			return
		case <-time.After(jittered(pause)):
		}
		d.exchangeWithAny(ctx)
	}
}

// repair exchanges states with a random member after broadcasts were dropped before all nodes had them. A node passes on what is new to it,
// so an exchange by each node that dropped some repairs all. The next push/pull would do so minutes later in a large network.
func (d *dialer) repair(ctx context.Context) {
	var due <-chan time.Time // nil: nothing was dropped
	var latest time.Time     // when due is at the latest, however long the burst is
	for {
		select {
		case <-ctx.Done():
			return
		case <-d.mesh.dropped.C():
			if due == nil {
				latest = time.Now().Add(repairWait)
			}
			due = time.After(min(jittered(repairPause), time.Until(latest)))
		case <-due:
			due = nil
			d.exchangeWithAny(ctx)
		}
	}
}

// exchangeWithAny exchanges states with a random member that is alive and can be dialed. If that fails, repair tries another one.
func (d *dialer) exchangeWithAny(ctx context.Context) {
	members := slices.DeleteFunc(d.mesh.Members(), func(m Member) bool { return m.Self || m.State != StateAlive || m.DialOut })
	if len(members) == 0 {
		return
	}
	if err := d.exchange(ctx, members[rand.N(len(members))].GossipAddr()); err != nil {
		d.mesh.log.Debug("exchange of states with a random member failed", "err", err)
		d.mesh.dropped.Set()
	}
}
