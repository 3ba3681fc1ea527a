package datapath

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"

	"weft/internal/api"
	"weft/internal/guard"
	"weft/internal/health"
	"weft/internal/hint"
	"weft/internal/netdump"
	"weft/internal/plural"
	"weft/internal/podlink"
	"weft/router/carrier/vxlan"
	"weft/tap/bridge"
)

// dropsAge is how old the counts of dropped frames may be: reading them runs a program.
const dropsAge = 2 * time.Second

// guards keeps the rules in force that say what ports may send. Methods may be called concurrently.
type guards struct {
	// constant
	store *guard.Store
	d     *Datapath

	mu      sync.Mutex
	fw      guard.Firewall // guarded by mu; nil: not made yet, or the host lacks what it needs
	applied *guard.Ruleset // guarded by mu; nil: none, or unknown
	err     error          // guarded by mu; why the rules are not in force
	cleared bool           // guarded by mu: there are no rules, as the node has left or has no guard

	dropsMu sync.Mutex
	drops   map[guard.Reason]uint64 // guarded by dropsMu
	dropsAt time.Time               // guarded by dropsMu
}

// GuardStatus says what the guard does.
type GuardStatus struct {
	Bound, Open int // numbers of ports
	Dropped     map[guard.Reason]uint64
}

// Apply puts the rules for the present pods, ports and addresses in force. It does nothing if they are, and does not look for changes
// by other programs: guardRules does.
func (g *guards) Apply(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.cleared {
		return nil
	}
	if g.d.settings.Guard == api.GuardOff {
		return g.turnOff(ctx)
	}
	rules := g.ruleset() // with the lock, so that an older state never replaces a newer one
	if g.applied != nil && g.err == nil && reflect.DeepEqual(*g.applied, rules) {
		return nil
	}
	err := g.apply(ctx, rules)
	if err != nil && g.err == nil {
		g.d.log.Warn("what ports send is not checked", "err", err)
	}
	g.err = err
	return err
}

// turnOff removes the rules of an earlier run, for a node without a guard. The caller holds mu.
func (g *guards) turnOff(ctx context.Context) error {
	fw, err := guard.New(ctx)
	if err == nil {
		err = fw.Remove(ctx)
	}
	if err == nil || errors.Is(err, guard.ErrNoNFT) {
		g.cleared = true
		return nil
	}
	return err
}

// guardRules are the rules of the guard, for the reconciler.
type guardRules struct{ g *guards }

// Name implements hostRules.
func (guardRules) Name() string { return "the rules of the guard" }

// Intact implements hostRules. Rules that are not in force are applied again without asking whether they were changed.
func (r guardRules) Intact(context.Context) (bool, error) {
	r.g.mu.Lock()
	defer r.g.mu.Unlock()
	if r.g.fw == nil || r.g.applied == nil {
		return false, nil
	}
	intact, err := r.g.fw.Intact()
	if err == nil && !intact {
		r.g.applied = nil
	}
	return intact, err
}

// Apply implements hostRules.
func (r guardRules) Apply(ctx context.Context) error { return r.g.Apply(ctx) }

// Postponed implements hostRules.
func (guardRules) Postponed() {}

// apply sets the rules. The caller holds mu.
func (g *guards) apply(ctx context.Context, rules guard.Ruleset) error {
	if g.fw == nil {
		fw, err := guard.New(ctx)
		if err != nil {
			return err
		}
		g.fw = fw
	}
	if err := g.fw.Apply(ctx, rules); err != nil {
		g.applied = nil
		return err
	}
	g.applied = &rules
	return nil
}

// undo removes the rules of a start that failed, unless there is a bridge from an earlier one.
func (g *guards) undo(ctx context.Context) error {
	info, err := bridge.Inspect(g.d.settings.Bridge)
	if err != nil || info.State == bridge.Found {
		return err
	}
	return g.remove(ctx)
}

// remove removes the rules for good.
func (g *guards) remove(ctx context.Context) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.cleared = true
	if g.fw == nil {
		return nil
	}
	return g.fw.Remove(ctx)
}

// ruleset returns the rules for the host as it is now.
func (g *guards) ruleset() guard.Ruleset {
	s := g.d.settings
	r := guard.Ruleset{
		Uplinks:   []string{s.Tap, s.KernelDevice(), vxlan.PairNames(s.KernelDevice()), s.TunneledDevice()},
		PodPrefix: podlink.HostPrefix, Strict: s.Guard == api.GuardPods,
		BridgeMAC: bridgeMAC(g.d.cfg.Self), Bridge: s.Bridge, Broadcasts: s.BroadcastLimit,
	}
	bound := map[string]bool{}
	for _, e := range g.store.All() {
		if len(e.Subnets) > 0 {
			r.Separated = append(r.Separated, e.Port)
		}
		if e.Mode == api.GuardOff {
			r.Open = append(r.Open, e.Link)
		}
		if e.Mode != api.GuardPods {
			r.Unbound = true
			continue
		}
		r.Bound = append(r.Bound, e.Port)
		bound[e.Link] = true
	}
	link, err := netlink.LinkByName(s.Bridge)
	if err != nil {
		return r // there is no bridge yet
	}
	copy(r.BridgeMAC[:], link.Attrs().HardwareAddr)
	if addrs, err := netdump.Repeat(func() ([]netlink.Addr, error) { return netlink.AddrList(link, netlink.FAMILY_ALL) }); err == nil {
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok {
				r.BridgeAddrs = append(r.BridgeAddrs, ip.Unmap().WithZone(""))
			}
		}
		slices.SortFunc(r.BridgeAddrs, netip.Addr.Compare)
	}
	info, err := bridge.Inspect(s.Bridge)
	if err != nil {
		r.Unbound = true
		return r
	}
	for _, port := range slices.Sorted(slices.Values(info.Ports)) {
		switch {
		case strings.HasPrefix(port, podlink.HostPrefix):
			r.Unbound = r.Unbound || !bound[port]
		case info.Ours && !slices.Contains(r.Uplinks, port) && !strings.HasPrefix(port, bridge.HiddenPrefix) && !strings.ContainsAny(port, `"*`):
			r.Others = append(r.Others, port) // the further ports of an adopted bridge belong to other programs
		}
	}
	r.Unbound = r.Unbound || !info.Ours
	return r
}

// SetGuard sets what a port may send, before or after its interface exists. It returns once the rules are in force. If they
// cannot be, the entry is as before.
func (d *Datapath) SetGuard(ctx context.Context, e guard.Entry) error {
	if err := e.Validate(); err != nil {
		return hint.New(hint.Invalid, "Check the addresses.", "%w", err)
	}
	if d.settings.Guard == api.GuardOff && e.Mode == api.GuardPods {
		return hint.New(hint.Refused, "Start the node with --guard host or --guard pods, or attach the pod with --guard off.",
			"the node runs with --guard off: no port is bound to its addresses")
	}
	if d.settings.Guard == api.GuardOff && len(e.Subnets) > 0 {
		return hint.New(hint.Refused, "Start the node with --guard host or --guard pods.",
			"the node runs with --guard off: no port is kept in its subnets")
	}
	before, known := d.guards.store.Of(e.Link)
	if known && reflect.DeepEqual(before, e) {
		return d.guardError(d.guards.Apply(ctx), e)
	}
	if err := d.guards.store.Put(e); err != nil {
		return err
	}
	err := d.guardError(d.guards.Apply(ctx), e)
	if err == nil {
		return nil
	}
	if known {
		return errors.Join(err, d.guards.store.Put(before))
	}
	return errors.Join(err, d.guards.store.Delete(e.Link))
}

// guardError explains why rules are not in force; nil where an open port in no subnet needs none.
func (d *Datapath) guardError(err error, e guard.Entry) error {
	if err == nil || e.Mode != api.GuardPods && len(e.Subnets) == 0 {
		return nil
	}
	return hint.New(hint.Refused, guard.Hint+" Or attach the pod without a guard.", "the pod's addresses cannot be enforced: %w", err)
}

// Guard returns the entry of a link.
func (d *Datapath) Guard(link string) (guard.Entry, bool) { return d.guards.store.Of(link) }

// Guards returns the entries of all links.
func (d *Datapath) Guards() []guard.Entry { return d.guards.store.All() }

// EndGuard removes the entry of a link, once its interface is gone.
func (d *Datapath) EndGuard(ctx context.Context, link string) error {
	if _, known := d.guards.store.Of(link); !known {
		return nil
	}
	if err := d.guards.store.Delete(link); err != nil {
		return err
	}
	_ = d.guards.Apply(ctx) // a rule for an interface that is gone does nothing, and the next repair tries again
	return nil
}

// GuardStatus returns what the guard does. The counts of dropped frames are at most dropsAge old.
func (d *Datapath) GuardStatus() GuardStatus {
	s := GuardStatus{Dropped: d.guards.dropped()}
	for _, e := range d.guards.store.All() {
		switch e.Mode {
		case api.GuardOff:
			s.Open++
		case api.GuardPods:
			s.Bound++
		case api.GuardHost: // as ports without an entry on most nodes
		}
	}
	return s
}

// dropped returns how many frames have been dropped since the rules were made; nil: not known.
func (g *guards) dropped() map[guard.Reason]uint64 {
	g.dropsMu.Lock()
	defer g.dropsMu.Unlock()
	if time.Since(g.dropsAt) < dropsAge {
		return g.drops
	}
	g.mu.Lock()
	fw := g.fw
	g.mu.Unlock()
	if fw == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), dropsAge)
	defer cancel()
	if counts, err := fw.Dropped(ctx); err == nil {
		g.drops, g.dropsAt = counts, time.Now()
	}
	return g.drops
}

// guardFindings reports that the rules are not in force.
func (d *Datapath) guardFindings() []health.Finding {
	d.guards.mu.Lock()
	err := d.guards.err
	d.guards.mu.Unlock()
	if err == nil {
		return d.broadcastFindings(d.guards.dropped()[guard.ReasonBroadcast], time.Now())
	}
	bound := slices.ContainsFunc(d.guards.store.All(), func(e guard.Entry) bool { return e.Mode == api.GuardPods })
	if d.settings.Guard == api.GuardPods || bound {
		return []health.Finding{{
			Code: health.GuardFailed,
			Text: fmt.Sprintf("What pods send is not checked, and no further guarded pod can be attached: %v.", err), Remedy: guard.Hint,
		}}
	}
	return []health.Finding{{
		Code:   health.HostGuardFailed,
		Text:   fmt.Sprintf("Frames of pods and peers to this host are not checked: %v.", err),
		Remedy: guard.Hint,
	}}
}

// broadcastFindings reports pods that have sent more broadcasts than the limit, of which total were dropped.
func (d *Datapath) broadcastFindings(total uint64, now time.Time) []health.Finding {
	n := d.broadcasts.Growth(total, now)
	if n == 0 {
		return nil
	}
	return []health.Finding{{
		Code: health.PodBroadcasts,
		Text: fmt.Sprintf("Pods of this host sent more broadcasts than the limit of %d a second each: %s dropped in the last minutes. Each "+
			"broadcast goes to all nodes.", d.settings.BroadcastLimit, plural.Count(n, "frame")),
		Remedy: "Find the pod with \"tcpdump -eni weave ether broadcast\" on this host. If it needs so many, raise --broadcast-limit.",
	}}
}
