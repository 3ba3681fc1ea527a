package datapath

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"weft/internal/api"
	"weft/internal/hoststate"
	"weft/internal/hoststate/live"
	"weft/internal/hostwatch"
	"weft/internal/masq"
	"weft/internal/podlink"
	"weft/internal/repairs"
	"weft/internal/settings"
	"weft/internal/signal"
	"weft/tap/bridge"
)

// How often the reconciler looks at the host without a notification.
const (
	fullPeriod     = 30 * time.Second // at everything
	settingsPeriod = time.Second      // at the settings of the kernel, which cause no notification
	// The pause between two looks merges a burst of notifications. It is longer where a look takes long, so that looks take a tenth
	// of a core at most, with many links or many changes.
	shortestPause = 100 * time.Millisecond
	longestPause  = 500 * time.Millisecond
	pauseFactor   = 10
	// maxRounds is the most comparisons of one look: what is behind a change may be seen only after its repair.
	maxRounds = 4
)

// reconciler restores what other programs change on the host. It belongs to the goroutine of Datapath.reconcile. Its fields need no
// lock; the host itself is changed under Datapath.hostMu.
type reconciler struct {
	d     *Datapath
	log   *slog.Logger
	host  *live.Host
	names hoststate.Names
	doubt hoststate.Doubt
	pods  hoststate.Pods
	pace  hoststate.Pace

	rules  []*ruleState
	failed map[hoststate.Key]repairs.Failure // repairs that failed when they were tried last, and are still needed
	// settled: one look has found nothing to change. What is changed before is part of the start, and no repair.
	settled bool
	// bridge is the bridge as it was made or adopted, without its MTU; nil: not seen yet.
	bridge *hoststate.Bridge
	// mtu is the MTU of the links at the last look, and resized whether it was another one before: then weft changes it, and no
	// other program has.
	mtu     int
	resized bool
	// postponed is when the next look is due, as a repair or a new pod waits; zero: none waits.
	postponed time.Time
}

// reconcile keeps the host as it should be until ctx ends: bridge, ports, addresses, settings and rules. It looks at what a
// notification is about, and twice a minute at everything. See docs/adr/0034-host-reconciler.md.
func (d *Datapath) reconcile(ctx context.Context) error {
	host, err := live.Open()
	if err != nil {
		return err
	}
	defer host.Close()
	r := &reconciler{d: d, log: d.log, host: host, pods: hoststate.Pods{Prefix: podlink.HostPrefix}, rules: d.hostRules()}
	if d.current.Load().bridgeMade {
		r.pods.Adopt() // pods of an earlier run
	}
	r.pods.AdoptLeased(d.cfg.Addresses.PodLinks())
	links, filters := signal.New(), signal.New()
	ctx, cancel := context.WithCancel(ctx)
	var watches sync.WaitGroup
	watches.Go(func() { watchHost(ctx, hostwatch.Links|hostwatch.Addresses|hostwatch.Routes, links, d.log) })
	watches.Go(func() { watchHost(ctx, hostwatch.Filters, filters, d.log) })
	defer watches.Wait()
	defer cancel()
	return r.run(ctx, links, filters)
}

// run looks at the host when something wakes it, until ctx ends. The error wraps errNoTap.
func (r *reconciler) run(ctx context.Context, links, filters signal.Chan) error {
	all, settings := time.NewTicker(fullPeriod), time.NewTicker(settingsPeriod)
	defer all.Stop()
	defer settings.Stop()
	rules, host, full := true, true, true // what to look at
	for {
		began := time.Now()
		if rules {
			r.lookAtRules(ctx, full)
		}
		if host {
			if err := r.lookAtHost(ctx); err != nil {
				return err
			}
		}
		rules, host, full = false, false, false
		pause(ctx, time.Since(began))
		var due <-chan time.Time
		if !r.postponed.IsZero() {
			due = time.After(time.Until(r.postponed))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-filters.C():
			rules = true
		case <-links.C():
			host = true
		case <-r.d.peers.C():
			r.followNodes(ctx)
		case <-settings.C:
			r.d.repairs.SetContested(r.pace.Contested(time.Now()))
			host = r.settingsWrong()
			r.d.retryVNI()
			r.d.followDirect()
		case <-due:
			r.postponed = time.Time{}
			rules, host = true, true
		case <-all.C:
			rules, host, full = true, true, true
		}
	}
}

// followNodes sets the rules for the nodes of now; failures are conditions.
func (r *reconciler) followNodes(ctx context.Context) {
	r.d.hostMu.Lock()
	defer r.d.hostMu.Unlock()
	if !r.d.cleared {
		_ = r.d.ports.Apply(ctx)
		_ = r.d.inward.Apply(ctx)
	}
}

// pause waits after a look that took some time.
func pause(ctx context.Context, took time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(min(max(pauseFactor*took, shortestPause), longestPause)):
	}
}

// settingsWrong reports whether something is wrong that causes no notification: a setting of the kernel, or the bridge's own entry in
// its forwarding database.
func (r *reconciler) settingsWrong() bool {
	if r.bridge == nil {
		return true
	}
	settings := hoststate.Desired{Settings: r.settings()}
	return r.host.Deaf(r.bridge.Name) || len(hoststate.DiffSettings(settings, live.Settings(settings.Paths()))) > 0
}

// errNoTap means that the TAP is gone. Only a restart of the daemon makes another one.
var errNoTap = errors.New("datapath: the TAP is gone")

// lookAtHost compares the host with what it should be, and repairs what differs. The error wraps errNoTap.
func (r *reconciler) lookAtHost(ctx context.Context) error {
	defer r.d.observeAddresses()
	defer func() { _ = r.d.guards.Apply(ctx) }() // for the ports and addresses of now; a failure is a condition
	return r.restoreHost(ctx)
}

func (r *reconciler) restoreHost(ctx context.Context) error {
	r.d.hostMu.Lock()
	defer r.d.hostMu.Unlock()
	for range maxRounds {
		if r.d.cleared || ctx.Err() != nil {
			return nil
		}
		actions, moved, err := r.compare()
		if ctx.Err() != nil {
			return nil // this node closes its TAP when ctx ends
		}
		if errors.Is(err, errNoTap) {
			return err
		}
		if err != nil {
			r.d.repairs.SetFailed([]repairs.Failure{{What: "the state of the host cannot be read", Err: err}})
			r.postpone(time.Second)
			return nil
		}
		r.d.repairs.SetMoved(moved)
		if !r.applyAll(actions) {
			r.settled = true
			break
		}
		r.afterRepair(ctx)
	}
	return nil
}

// applyAll applies the actions that need not wait, and notes those that fail. It reports whether it changed anything.
func (r *reconciler) applyAll(actions []hoststate.Action) (changed bool) {
	failed := make(map[hoststate.Key]repairs.Failure)
	for _, a := range actions {
		key, now := hoststate.Key{Kind: a.Kind, Object: a.Object()}, time.Now()
		before, failedBefore := r.failed[key]
		if wait := r.pace.Wait(key, now); wait > 0 {
			if failedBefore {
				failed[key] = before
			}
			r.postpone(wait)
			continue
		}
		r.pace.Repaired(key, now)
		if err := r.apply(a); err != nil {
			r.pace.Failed(key)
			r.postpone(time.Second)
			failed[key] = repairs.Failure{What: a.String(), Setting: a.Kind == hoststate.Set, Err: err}
			if !failedBefore {
				r.log.Warn("cannot restore what another program changed on this host", "what", a.String(), "err", err)
			}
			continue
		}
		changed = true
		r.record(a, now)
	}
	r.failed = failed
	r.d.repairs.SetFailed(slices.SortedFunc(maps.Values(failed), func(a, b repairs.Failure) int { return cmp.Compare(a.What, b.What) }))
	return changed
}

// record logs and counts a repair.
func (r *reconciler) record(a hoststate.Action, now time.Time) {
	if !r.settled || r.resized && a.Kind == hoststate.SetMTU || a.Kind == hoststate.AddAddress && !r.d.hadAddress(a.Prefix.Addr()) {
		r.log.Info("changed this host for the overlay", "kind", string(a.Kind), "was", a.String())
		return
	}
	r.d.repairs.Add(string(a.Kind), a.String(), now)
	level := r.level(hoststate.Key{Kind: a.Kind, Object: a.Object()}, now)
	r.log.Log(context.Background(), level, "restored what another program changed on this host", "kind", string(a.Kind), "was", a.String())
}

// level is the level of the message about a repair. A condition reports one that another program undoes again and again.
func (r *reconciler) level(key hoststate.Key, now time.Time) slog.Level {
	if r.pace.IsContested(key, now) {
		return slog.LevelDebug
	}
	return slog.LevelWarn
}

// compare returns the actions that make the host as it should be, and the pods' ports that are in another bridge.
func (r *reconciler) compare() (actions []hoststate.Action, moved []hoststate.Link, err error) {
	if err := r.findBridge(); err != nil {
		return nil, nil, err
	}
	desired := r.desired()
	r.noteMTU(desired.Bridge.MTU)
	observed, err := r.host.Observe(desired)
	if err != nil {
		return nil, nil, err
	}
	if renames := r.names.Observe(observed); len(renames) > 0 {
		return renames, nil, nil // the rest is compared afterwards
	}
	for _, p := range observed.Addresses {
		r.d.had.Store(p.Addr(), true)
	}
	if _, there := observed.Links[r.d.settings.Tap]; !there {
		return nil, nil, fmt.Errorf("%w: %s was deleted, renamed or moved by another program", errNoTap, r.d.settings.Tap)
	}
	if r.bridge != nil {
		desired.Bridge = *r.bridge
		desired.Bridge.MTU = r.mtu
	}
	r.pods.Records = records(observed)
	if r.pods.Observe(observed, desired.Bridge.Name, time.Now()) {
		r.postpone(hoststate.Grace)
	}
	desired.Pods = r.pods.Desired()
	r.names.Remember(desired, observed)
	actions, pending := r.doubt.Ripe(hoststate.Diff(desired, observed), time.Now())
	if pending {
		r.postpone(hoststate.DoubtTime)
	}
	return actions, hoststate.MovedPods(desired, observed), nil
}

// noteMTU notes a change of the MTU of the links; hostMu is held. The kernel forgets the settings of IPv6 of a link while its MTU is too
// small for IPv6: then weft sets them again, and no other program has changed them.
func (r *reconciler) noteMTU(mtu int) {
	regained := r.d.mtus.regained6 || r.mtu < minMTU6 && mtu >= minMTU6
	r.settled, r.d.mtus.regained6 = r.settled && !regained, false
	r.resized, r.mtu = r.mtu != mtu, mtu
}

// records returns what was recorded when pods were attached.
func records(o hoststate.Observed) map[string]hoststate.Record {
	list := make(map[string]hoststate.Record)
	for name, l := range o.Links {
		if origin := podlink.ParseOrigin(l.Alias); origin != (podlink.Origin{}) {
			list[name] = hoststate.Record{Hairpin: !origin.NoHairpin, Older: !origin.NoHairpin && origin.Runtime == ""}
		}
	}
	return list
}

// findBridge remembers the bridge as it was made or adopted, at the first look and after it was made again. What has to be compared
// depends on it.
func (r *reconciler) findBridge() error {
	if r.bridge != nil {
		return nil
	}
	info, err := bridge.Inspect(r.d.settings.Bridge)
	if err != nil || info.State != bridge.Found {
		return err
	}
	made := info.Ours || info.MAC == bridgeMAC(r.d.cfg.Self) // another program may have changed its alias
	r.bridge = &hoststate.Bridge{Name: r.d.settings.Bridge, Made: made}
	if made {
		r.bridge.MAC, r.bridge.Alias = info.MAC, bridge.Alias
	}
	return nil
}

// desired returns the host as it should be, without pods.
func (r *reconciler) desired() hoststate.Desired {
	d := r.d
	want := hoststate.Desired{
		Bridge:    hoststate.Bridge{Name: d.settings.Bridge, MTU: d.linkMTU()},
		Tunnels:   []hoststate.Tunnel{{Name: d.settings.Tap, MTU: d.linkMTU()}},
		PodMTU:    d.MTU(),
		Addresses: d.cfg.Addresses.HostAddresses(),
		Settings:  r.settings(),
	}
	for _, run := range ports(d.kernelRuns()) {
		if run.port.IsShut() {
			continue
		}
		for _, name := range run.port.Names() {
			want.Tunnels = append(want.Tunnels, hoststate.Tunnel{Name: name, MTU: cmp.Or(run.fixedMTU, d.linkMTU()), MAC: run.port.MAC()})
		}
	}
	return want
}

// settings returns the settings of the kernel that the overlay needs, and those that protect the host as far as they can be written:
// rules protect it, too. An adopted bridge keeps its own.
func (r *reconciler) settings() []hoststate.Setting {
	list := r.d.settingsOf()
	if r.bridge == nil || !r.bridge.Made {
		return list
	}
	names := []string{r.d.settings.Tap}
	for _, run := range ports(r.d.kernelRuns()) {
		names = append(names, run.port.Names()...)
	}
	for _, s := range hoststate.GuardSettings(r.bridge.Name, names...) {
		if live.Writable(s.Path) {
			list = append(list, s)
		}
	}
	return list
}

// settingsOf returns the settings of the kernel that the overlay needs.
func (d *Datapath) settingsOf() []hoststate.Setting {
	s := d.settings
	forward := !s.NoMasquerade || s.DirectRouting == settings.DirectRoutingAuto || d.cfg.Exposure.Inward() != api.InwardOff
	return hoststate.SettingsFor(s.Bridge, s.HasIPv4(), s.HasIPv6(), forward)
}

// apply applies an action.
func (r *reconciler) apply(a hoststate.Action) error {
	switch {
	case a.Kind == hoststate.MakeBridge:
		br, err := bridge.Ensure(r.d.bridgeConfig())
		if err != nil {
			return err
		}
		br.Close()
		r.bridge = nil // weft has made it now
		r.pods.Adopt()
		return nil
	case a.Kind == hoststate.Rename:
		return bridge.SetName(a.Link, a.Text)
	case a.Kind == hoststate.Set && (a.Path == hoststate.Forwarding4 || a.Path == hoststate.Forwarding6):
		return masq.EnableForwarding(a.Path == hoststate.Forwarding4, a.Path == hoststate.Forwarding6)
	}
	return r.host.Apply(a)
}

// afterRepair restores what the kernel forgets when a link goes down or a bridge is made again.
func (r *reconciler) afterRepair(ctx context.Context) {
	for _, run := range r.d.kernelRuns() {
		if err := run.carrier.Ensure(ctx); err != nil {
			r.log.Debug("cannot restore the entries of the kernel path", "err", err) // its controller tries again
		}
	}
}

// postpone makes the next look due after the given time, if none is due before.
func (r *reconciler) postpone(wait time.Duration) {
	if at := time.Now().Add(wait); r.postponed.IsZero() || at.Before(r.postponed) {
		r.postponed = at
	}
}

// watchHost sets wake for each change of the given kinds, and after each failure to watch, until ctx ends.
func watchHost(ctx context.Context, kinds hostwatch.Kind, wake signal.Chan, log *slog.Logger) {
	for ctx.Err() == nil {
		w, err := hostwatch.Open(kinds)
		wake.Set() // there may have been changes before
		if err == nil {
			err = forward(ctx, w, wake)
		}
		if ctx.Err() != nil {
			return
		}
		log.Debug("cannot watch the host", "kinds", kinds, "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(settingsPeriod):
		}
	}
}

// forward runs a watcher and passes on its wake-ups.
func forward(ctx context.Context, w *hostwatch.Watcher, wake signal.Chan) error {
	ended := make(chan error, 1)
	go func() { ended <- w.Run(ctx) }()
	for {
		select {
		case err := <-ended:
			return err
		case <-w.Changed():
			wake.Set()
		}
	}
}
