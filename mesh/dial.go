package mesh

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Pauses between attempts to reach a target: they grow by half from first to longest, each drawn from ±25 %. While a
// target is a member, the dialer looks every recheck whether it still is. A node that has learned of a new member has
// chosen the secret that it seals with after settlePause.
const (
	firstPause   = 300 * time.Millisecond
	longestPause = time.Minute
	recheck      = 10 * time.Second
	settlePause  = 300 * time.Millisecond
	resolveLimit = 3 * time.Second
	contestLimit = 2 * time.Second
)

// dialer tries to join by every target, for ever: a name is resolved again at each attempt, since an address that was
// right yesterday may be another's today.
type dialer struct {
	mesh *Mesh // constant

	triedAll chan struct{} // closed after the first attempt at every target known at the start, unless Run ends before

	trying sync.Mutex // held while the mesh seals with another key for the sake of one exchange

	mu      sync.Mutex
	ctx     context.Context               // guarded by mu: Run's; nil before and after it
	wg      sync.WaitGroup                // the goroutine of each target
	active  map[Target]context.CancelFunc // guarded by mu
	lastErr map[Target]error              // guarded by mu: nil once joined
}

// TargetStatus is how it stands with a target.
type TargetStatus struct {
	Target Target
	// Err is why the last attempt failed, nil where it did not or none was made yet.
	Err error
}

func newDialer(m *Mesh) *dialer {
	return &dialer{
		mesh: m, triedAll: make(chan struct{}),
		active: make(map[Target]context.CancelFunc), lastErr: make(map[Target]error),
	}
}

// run dials until ctx ends.
func (d *dialer) run(ctx context.Context) {
	targets := slices.Clone(d.mesh.cfg.Peers)
	for _, s := range d.mesh.cfg.Targets.List() {
		t, err := ParseTarget(s, d.mesh.cfg.Advertise.Port())
		if err != nil {
			d.mesh.log.Warn("a saved target is unusable", "addr", s, "err", err)
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
		d.wg.Go(func() { d.recover(ctx) })
	}
	first.Wait()
	if d.settled(ctx) {
		close(d.triedAll)
	}
	d.wg.Go(func() { d.catchUp(ctx) })
	<-ctx.Done()
	d.mu.Lock()
	d.ctx = nil // nothing starts from here on
	d.mu.Unlock()
	d.wg.Wait()
}

// catchUp exchanges states with a few members picked at random soon after the start. Where many nodes start at once, each
// tells as often of the others as is enough for the few that it knows by then, and who is left out would hear of them with
// the next exchange only, half a minute later or more.
func (d *dialer) catchUp(ctx context.Context) {
	for _, pause := range []time.Duration{time.Second, 2 * time.Second, 4 * time.Second, 8 * time.Second} {
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause/4*3 + rand.N(pause/2)):
		}
		members := slices.DeleteFunc(d.mesh.Members(), func(m Member) bool { return m.Self || m.State != StateAlive || m.DialOut })
		if len(members) == 0 {
			continue
		}
		if err := d.exchange(ctx, members[rand.N(len(members))].GossipAddr()); err != nil {
			d.mesh.log.Debug("catching up", "err", err)
		}
	}
}

// settled waits for the answer of whoever else claims to have this node's key, if somebody does: where one comes, Run
// ends. It reports whether ctx has not ended.
func (d *dialer) settled(ctx context.Context) bool {
	if d.mesh.contested.Load() {
		select {
		case <-ctx.Done():
		case <-time.After(contestLimit):
		}
	}
	return ctx.Err() == nil
}

// start begins to dial t, if it is not dialled already; first, where given, is done after the first attempt. mu is held.
func (d *dialer) start(t Target, first *sync.WaitGroup) {
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

// dial tries t until ctx ends and calls tried after each attempt.
func (d *dialer) dial(ctx context.Context, t Target, tried func()) {
	pause := firstPause
	for {
		err := d.attempt(ctx, t)
		d.note(t, err)
		tried()
		wait := recheck
		if err == nil {
			pause = firstPause
		} else {
			wait = pause/4*3 + rand.N(pause/2)
			pause = min(pause+pause/2, longestPause)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// attempt joins by t unless it is a member already.
func (d *dialer) attempt(ctx context.Context, t Target) error {
	resolveCtx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(resolveCtx, "ip", t.Host)
	if err != nil {
		return fmt.Errorf("mesh: resolving target %s: %w", t, err)
	}
	for _, a := range addrs {
		addr := netip.AddrPortFrom(a.Unmap(), t.Port)
		if addr == d.mesh.cfg.Advertise || d.mesh.roster.aliveAt(addr) {
			return nil
		}
		if err = d.join(ctx, addr); err == nil {
			return nil
		}
	}
	return fmt.Errorf("mesh: joining by target %s: %w", t, err)
}

// join exchanges states with whoever is at addr. A node that opens what this one seals, but answers with a secret that
// this one does not have, knows from then on what it has: the second time they may understand each other.
func (d *dialer) join(ctx context.Context, addr netip.AddrPort) error {
	err := d.exchangeByAnyKey(ctx, addr)
	if !anotherSecret(err) {
		return err
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settlePause):
		return d.exchangeByAnyKey(ctx, addr)
	}
}

// exchangeByAnyKey exchanges states with whoever is at addr, sealed with the present key, and where the node there has
// another one, with each of those that all members alive can open as well.
func (d *dialer) exchangeByAnyKey(ctx context.Context, addr netip.AddrPort) error {
	err := d.exchange(ctx, addr)
	if !anotherSecret(err) {
		return err
	}
	d.trying.Lock()
	defer d.trying.Unlock()
	keys := d.mesh.keys
	for _, key := range keys.others() {
		otherErr := keys.try(key)
		if otherErr == nil {
			otherErr = d.exchange(ctx, addr)
		}
		if !anotherSecret(otherErr) {
			err = otherErr
			break
		}
	}
	return errors.Join(err, keys.done())
}

// anotherSecret reports whether err says that both nodes have secrets, and none in common as far as it goes.
func anotherSecret(err error) bool {
	e, ok := errors.AsType[*SecretError](err)
	return ok && e.Reason == MismatchOther
}

// exchange exchanges states with whoever is at addr. memberlist cannot be interrupted in that: where ctx ends first,
// what it does ends by itself at the stream's timeout, and nobody waits for it.
func (d *dialer) exchange(ctx context.Context, addr netip.AddrPort) error {
	list := d.mesh.list.Load()
	if list == nil {
		return ErrNotRunning
	}
	done := make(chan error, 1)
	go func() {
		_, err := list.Join([]string{addr.String()})
		done <- secretError(addr, err)
	}()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case err := <-done:
		return err
	}
}

// note keeps the outcome of an attempt and logs it where it changed.
func (d *dialer) note(t Target, err error) {
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
	if err != nil && (!known || old == nil || errors.Is(err, ErrSecret) != errors.Is(old, ErrSecret)) {
		d.mesh.log.Warn("target not reached, trying on", "addr", t.String(), "err", err)
	} else if err == nil && (!known || old != nil) {
		d.mesh.log.Info("target reached", "addr", t.String())
	}
}

// recoverFirst is within which time after the start a node first dials those that it knows of earlier runs: a restart costs pods
// as little as that, and nodes that start together do not all dial at once.
const recoverFirst = 200 * time.Millisecond

// recover dials, with growing pauses, members that are known but not alive: those of earlier runs, and those on the
// other side of a partition, to whom memberlist stops talking after half a minute.
func (d *dialer) recover(ctx context.Context) {
	pause := 2 * time.Second
	for next := rand.N(recoverFirst); ; next = pause/4*3 + rand.N(pause/2) {
		select {
		case <-ctx.Done():
			return
		case <-time.After(next):
		}
		lost := d.lost()
		if len(lost) == 0 {
			pause = 2 * time.Second
			continue
		}
		pause = min(pause+pause/2, longestPause)
		rand.Shuffle(len(lost), func(i, j int) { lost[i], lost[j] = lost[j], lost[i] })
		for _, addr := range lost[:min(3, len(lost))] {
			err := d.join(ctx, addr)
			if err == nil {
				pause = 2 * time.Second
			} else if e, ok := errors.AsType[*SecretError](err); ok {
				d.mesh.outside.note(e.Addr.Addr(), e.Reason, time.Now())
			}
		}
	}
}

// lost returns the gossip addresses of members that were seen, did not say good-bye, and are not alive.
func (d *dialer) lost() []netip.AddrPort {
	var lost []netip.AddrPort
	for id, text := range d.mesh.cfg.Targets.Seen() {
		addr, err := netip.ParseAddrPort(text)
		if err != nil || id == d.mesh.cfg.Identity.ID || addr == d.mesh.cfg.Advertise {
			continue
		}
		if m, known := d.mesh.roster.lookup(id); known && m.State != StateDead {
			continue
		}
		lost = append(lost, addr)
	}
	return lost
}

// Connect adds targets and dials them at once; with replace they take the place of all others. The list is durable.
func (m *Mesh) Connect(targets []Target, replace bool) error {
	list := m.cfg.Targets.List()
	if replace {
		list = nil
		m.dialer.stopAllBut(targets)
	}
	for _, t := range targets {
		if !slices.Contains(list, t.String()) {
			list = append(list, t.String())
		}
	}
	if err := m.cfg.Targets.Set(list); err != nil {
		return err
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

// Disconnect takes targets away; whoever is a member stays one. Targets not in the list are ignored.
func (m *Mesh) Disconnect(targets []Target) error {
	list := slices.DeleteFunc(m.cfg.Targets.List(), func(s string) bool {
		return slices.ContainsFunc(targets, func(t Target) bool { return t.String() == s })
	})
	for _, t := range targets {
		m.dialer.stop(t)
	}
	return m.cfg.Targets.Set(list)
}

// TargetStatus returns how it stands with each target, ordered by its text.
func (m *Mesh) TargetStatus() []TargetStatus {
	m.dialer.mu.Lock()
	defer m.dialer.mu.Unlock()
	all := make([]TargetStatus, 0, len(m.dialer.active))
	for t := range m.dialer.active {
		all = append(all, TargetStatus{Target: t, Err: m.dialer.lastErr[t]})
	}
	slices.SortFunc(all, func(a, b TargetStatus) int {
		return slices.Compare([]byte(a.Target.String()), []byte(b.Target.String()))
	})
	return all
}

func (d *dialer) stop(t Target) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if cancel, running := d.active[t]; running {
		cancel()
		delete(d.active, t)
		delete(d.lastErr, t)
	}
}

func (d *dialer) stopAllBut(keep []Target) {
	d.mu.Lock()
	var others []Target
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
