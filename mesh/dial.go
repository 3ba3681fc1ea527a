package mesh

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/peer"
	"weft/internal/signal"
	"weft/internal/target"
	"weft/mesh/mismatch"
)

// Pauses between attempts to reach a target: they grow by half from firstPause to longestPause, each drawn from ±25 %.
// While a target is a member, the dialer checks every recheckPause whether it still is.
const (
	firstPause   = 300 * time.Millisecond
	longestPause = time.Minute
	recheckPause = 10 * time.Second
)

const (
	// resolveTimeout bounds the lookup of a target's name.
	resolveTimeout = 3 * time.Second
	// contestTimeout is how long a node that claims this node's key is waited for to prove it.
	contestTimeout = 2 * time.Second
)

// dialer tries to join the network through every target, without limit. It resolves names again for each attempt, since
// the address of a name may have changed.
type dialer struct {
	mesh *Mesh // constant

	rejoinNow signal.Chan // makes rejoin dial at once

	triedAll chan struct{} // closed after the first attempt at every target known at the start, unless Run ends before

	mu      sync.Mutex
	ctx     context.Context                      // guarded by mu: Run's; nil before and after it
	wg      sync.WaitGroup                       // the goroutine of each target
	active  map[target.Target]context.CancelFunc // guarded by mu
	lastErr map[target.Target]error              // guarded by mu: nil once joined
	reached map[target.Target]memberPlace        // guarded by mu: the member that was there last
	redial  chan struct{}                        // guarded by mu: closed and replaced to dial all targets at once
}

// memberPlace is a member at a gossip address.
type memberPlace struct {
	id peer.ID
	at netip.AddrPort
}

// TargetStatus is the state of the attempts to join through a target.
type TargetStatus struct {
	Target target.Target
	// Err is why the target is not joined now: why the latest attempt failed, ErrNotTried, or that the member which was there is not alive
	// any more. Nil: it is joined.
	Err error
	// Moved is the member that was at the target before, and is alive at another address. It is zero without Err.
	Moved Member
}

// ErrNotTried is TargetStatus.Err before the first attempt.
var ErrNotTried = errors.New("mesh: not tried yet")

func newDialer(m *Mesh) *dialer {
	return &dialer{
		mesh: m, triedAll: make(chan struct{}), rejoinNow: signal.New(), redial: make(chan struct{}),
		active: make(map[target.Target]context.CancelFunc), lastErr: make(map[target.Target]error), reached: make(map[target.Target]memberPlace),
	}
}

// run dials until ctx ends.
func (d *dialer) run(ctx context.Context) {
	targets := slices.Clone(d.mesh.cfg.Peers)
	for _, s := range d.mesh.cfg.Targets.List() {
		t, err := target.Parse(s, d.mesh.cfg.Advertise.Port())
		if err != nil {
			d.mesh.log.Warn("saved target ignored: it cannot be parsed", "addr", s, "err", err)
			continue
		}
		targets = append(targets, t)
	}
	var first sync.WaitGroup
	d.mu.Lock()
	d.ctx = ctx
	for _, t := range targets {
		d.start(t, &first)
	}
	d.mu.Unlock()
	if d.mesh.cfg.Discovery {
		d.wg.Go(func() { d.rejoin(ctx) })
	}
	first.Wait()
	if d.awaitContest(ctx) {
		close(d.triedAll)
	}
	d.wg.Go(func() { d.catchUp(ctx) })
	d.wg.Go(func() { d.repair(ctx) })
	<-ctx.Done()
	d.mu.Lock()
	d.ctx = nil // no target is started from here on
	d.mu.Unlock()
	d.wg.Wait()
}

// awaitContest waits contestTimeout when another node claims this node's key: if that node was started earlier, the stream
// to it ends Run within that time. It reports whether ctx has not ended.
func (d *dialer) awaitContest(ctx context.Context) bool {
	if d.mesh.keyContested.Load() {
		select {
		case <-ctx.Done():
		case <-time.After(contestTimeout):
		}
	}
	return ctx.Err() == nil
}

// start begins to dial t, unless it is dialed already; mu is held. first, when not nil, waits for the first attempt.
func (d *dialer) start(t target.Target, first *sync.WaitGroup) {
	if _, running := d.active[t]; running {
		return
	}
	ctx, cancel := context.WithCancel(d.ctx)
	d.active[t] = cancel
	done := func() {}
	if first != nil {
		first.Add(1)
		done = sync.OnceFunc(first.Done)
	}
	d.wg.Go(func() {
		defer cancel()
		defer done()
		d.dial(ctx, t, done)
	})
}

// dial tries to join through t until ctx ends. It calls tried after each attempt.
func (d *dialer) dial(ctx context.Context, t target.Target, tried func()) {
	pause := firstPause
	for {
		redial := d.nextRedial()
		err := d.attempt(ctx, t)
		d.recordAttempt(t, err)
		tried()
		wait := recheckPause
		if err == nil {
			pause = firstPause
		} else {
			wait = jittered(pause)
			pause = longer(pause)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		case <-redial:
			pause = firstPause
		}
	}
}

// jittered returns a random duration of ±25 % around pause.
func jittered(pause time.Duration) time.Duration { return pause/4*3 + rand.N(pause/2) }

// longer returns the pause after pause: half as long again, at most longestPause.
func longer(pause time.Duration) time.Duration { return min(pause+pause/2, longestPause) }

// attempt joins through t, unless a member is alive there already.
func (d *dialer) attempt(ctx context.Context, t target.Target) error {
	resolveCtx, cancel := context.WithTimeout(ctx, resolveTimeout)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(resolveCtx, "ip", t.Host)
	if err != nil {
		return target.LookupError(err)
	}
	for _, a := range addrs {
		addr := netip.AddrPortFrom(a.Unmap(), t.Port)
		if addr == d.mesh.at.Load().addr {
			return nil
		}
		d.mesh.roster.expect(addr)
		if id, alive := d.mesh.roster.memberAt(addr); alive {
			d.recordReached(t, memberPlace{id, addr})
			return nil
		}
		if err = d.exchange(ctx, addr); err == nil {
			if id, alive := d.mesh.roster.memberAt(addr); alive {
				d.recordReached(t, memberPlace{id, addr})
			}
			return nil
		}
		err = t.DialError(addr.Addr(), err)
	}
	return err // the caller knows the target
}

// exchange exchanges states with the node at addr. memberlist cannot be interrupted in an exchange: when ctx ends first,
// exchange returns, and the rest ends at the timeout of the stream.
func (d *dialer) exchange(ctx context.Context, addr netip.AddrPort) error {
	list := d.mesh.list.Load()
	if list == nil {
		return ErrNotRunning
	}
	done := make(chan error, 1)
	go func() {
		done <- d.mesh.transport.join(list, addr)
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		return err
	}
}

// recordReached records that a member is at a target.
func (d *dialer) recordReached(t target.Target, p memberPlace) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reached[t] = p
}

// redialAll makes the dialer dial all targets at once, as after a change of the keys.
func (d *dialer) redialAll() {
	d.mu.Lock()
	defer d.mu.Unlock()
	close(d.redial)
	d.redial = make(chan struct{})
}

// recordAttempt records the result of an attempt, and logs it when it has changed.
func (d *dialer) recordAttempt(t target.Target, err error) {
	d.mu.Lock()
	old, known := d.lastErr[t]
	_, active := d.active[t]
	if active {
		d.lastErr[t] = err
	}
	d.mu.Unlock()
	if !active || errors.Is(err, context.Canceled) {
		return
	}
	if err != nil && (!known || old == nil || errors.Is(err, mismatch.ErrSecret) != errors.Is(old, mismatch.ErrSecret)) {
		d.mesh.log.Warn("target not reached, retrying", "addr", t.String(), "err", err)
	} else if err == nil && (!known || old != nil) {
		d.mesh.log.Info("target reached", "addr", t.String())
	}
}

// stop ends the attempts at t.
func (d *dialer) stop(t target.Target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if cancel, running := d.active[t]; running {
		cancel()
		delete(d.active, t)
		delete(d.lastErr, t)
		delete(d.reached, t)
	}
}

// stopAllBut ends the attempts at all targets but those in keep.
func (d *dialer) stopAllBut(keep []target.Target) {
	d.mu.Lock()
	var others []target.Target
	for t := range d.active {
		if !slices.Contains(keep, t) {
			others = append(others, t)
		}
	}
	d.mu.Unlock()
	for _, t := range others {
		d.stop(t)
	}
}

// Connect adds targets and dials them at once; with replace they replace all others. The new list is on disk when Connect
// returns nil.
func (m *Mesh) Connect(targets []target.Target, replace bool) error {
	err := m.cfg.Targets.Update(func(list []string) []string {
		if replace {
			list = nil
		}
		for _, t := range targets {
			if !slices.Contains(list, t.String()) {
				list = append(list, t.String())
			}
		}
		return list
	})
	if err != nil {
		return err
	}
	if replace {
		m.dialer.stopAllBut(targets)
	}
	m.dialer.mu.Lock()
	defer m.dialer.mu.Unlock()
	if m.dialer.ctx == nil {
		return nil // Run starts with them
	}
	for _, t := range targets {
		m.dialer.start(t, nil)
	}
	return nil
}

// Disconnect removes targets; a member at one of them stays a member. Targets that are not in the list are ignored.
func (m *Mesh) Disconnect(targets []target.Target) error {
	err := m.cfg.Targets.Update(func(list []string) []string {
		return slices.DeleteFunc(list, func(s string) bool {
			return slices.ContainsFunc(targets, func(t target.Target) bool { return t.String() == s })
		})
	})
	if err != nil {
		return err
	}
	for _, t := range targets {
		m.dialer.stop(t)
	}
	return nil
}

// TargetStatus returns the state of each target, ordered by its text.
func (m *Mesh) TargetStatus() []TargetStatus {
	all, reached := m.dialer.status()
	for i := range all {
		last, ok := reached[all[i].Target]
		member, known := m.roster.lookup(last.id)
		switch {
		case !ok || !known:
		case member.State == StateAlive && member.GossipAddr() == last.at:
			all[i].Err = nil // it is back, before the next attempt
		case member.State != StateAlive && all[i].Err == nil:
			all[i].Err = fmt.Errorf("mesh: node %s, which was there, is %s", member.Name, member.State)
		case member.State == StateAlive && all[i].Err != nil:
			all[i].Moved = member
		}
	}
	slices.SortFunc(all, func(a, b TargetStatus) int {
		return slices.Compare([]byte(a.Target.String()), []byte(b.Target.String()))
	})
	return all
}

// status returns the results of the latest attempts, and the members that were at the targets last.
func (d *dialer) status() (all []TargetStatus, reached map[target.Target]memberPlace) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for t := range d.active {
		err, tried := d.lastErr[t]
		if !tried {
			err = ErrNotTried
		}
		all = append(all, TargetStatus{Target: t, Err: err})
	}
	return all, maps.Clone(d.reached)
}
