package leases

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/guard"
	"weft/internal/health"
	"weft/internal/hint"
	"weft/internal/hostnet"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/ipam"
)

// A pod that was attached before its node had a guard has none. It gets one while it runs, from its leases and its interface, unless
// that would cut it off: a pod that already uses more than its leases stays as it is, and a condition names it.

// runningPeriod is how often pods without a guard are looked for.
const runningPeriod = 15 * time.Second

// requestGrace is how long the program that knows the annotations of a container has to request its guard, before a condition names it.
const requestGrace = time.Minute

// unguarded are the pods that run without a guard although this node binds pods.
type unguarded struct {
	mu   sync.Mutex
	pods map[string]unguardedPod // guarded by mu; by the name of the host end
}

// unguardedPod is a pod without a guard.
type unguardedPod struct {
	owner string
	why   error
	since time.Time // when it was first seen
	grace bool      // its guard may still be requested
}

// note records that a pod has no guard.
func (u *unguarded) note(link string, p unguardedPod) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.pods == nil {
		u.pods = map[string]unguardedPod{}
	}
	p.since = time.Now()
	if before, known := u.pods[link]; known {
		p.since = before.since
	}
	u.pods[link] = p
}

// retain forgets pods that are gone, or bound or open now.
func (u *unguarded) retain(keep func(link string) bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for link := range u.pods {
		if !keep(link) {
			delete(u.pods, link)
		}
	}
}

// unguardedFindings reports pods that run without a guard.
func (m *Manager) unguardedFindings() []health.Finding {
	m.unguarded.retain(func(link string) bool {
		_, known := m.cfg.Guards.Guard(link)
		return !known && hostnet.LinkExists(link)
	})
	return m.unguarded.findings(time.Now())
}

// findings reports the pods, as of now.
func (u *unguarded) findings(now time.Time) []health.Finding {
	u.mu.Lock()
	defer u.mu.Unlock()
	var names []string
	for link, p := range u.pods {
		if p.grace && now.Sub(p.since) < requestGrace {
			continue
		}
		if p.owner != "" {
			link += " of " + p.owner
		}
		names = append(names, fmt.Sprintf("%s (%v)", link, p.why))
	}
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	return []health.Finding{{
		Code: health.PodsUnguarded,
		Text: fmt.Sprintf("%d pods are not bound to their addresses, because they were attached before this node had a guard, and use more "+
			"than it would let them: %s.", len(names), health.List(names)),
		Remedy: "Run \"weft attach\" for their namespaces with --allow-address or --guard off; in Kubernetes, annotate the pods with " +
			"weft.network/allowed-addresses or weft.network/guard: \"off\". Or start them again.",
	}}
}

// guardRunning binds pods without a guard until ctx ends.
func (m *Manager) guardRunning(ctx context.Context) {
	tick := time.NewTicker(runningPeriod)
	defer tick.Stop()
	for {
		if err := m.bindRunning(ctx); err != nil {
			m.log.Warn("cannot look for pods without a guard", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// bindRunning binds the pods that have no entry, where this node binds pods. Ports are listed before the entries are read: a new pod has
// an entry before it has a port.
func (m *Manager) bindRunning(ctx context.Context) error {
	if m.cfg.Guard != api.GuardPods {
		return nil
	}
	ports, err := podlink.Ports(m.cfg.Bridge)
	if err != nil {
		return err
	}
	owners := ownersOf(m.cfg.Allocator.Leases())
	for _, p := range ports {
		if _, known := m.cfg.Guards.Guard(p.Name); known {
			continue
		}
		h, leased := owners[p.Name]
		switch {
		case !leased:
			m.unguarded.note(p.Name, unguardedPod{why: errors.New("no lease says which addresses it has")})
		case h.Kind == holder.Container && m.cfg.GuardByRequest:
			m.unguarded.note(p.Name, unguardedPod{owner: h.String(), why: errors.New("weft-kube does not know its pod"), grace: true})
		default:
			if err := m.bindPort(ctx, p, h, guard.Entry{Mode: api.GuardPods}); err != nil {
				m.unguarded.note(p.Name, unguardedPod{owner: h.String(), why: err})
			} else {
				m.log.Info("bound a running pod to its addresses", "port", p.Name, "holder", h)
			}
		}
	}
	return nil
}

// ownersOf returns the holders of leases by the names of their host ends.
func ownersOf(leases []ipam.Lease) map[string]holder.Holder {
	owners := map[string]holder.Holder{}
	for _, l := range leases {
		h := holder.Parse(l.Holder)
		if h.Kind == holder.Orphan || h.Kind == holder.Host || h.Kind == holder.Gateway || h.Kind == holder.Probes {
			continue
		}
		for _, name := range h.PossibleLinks() {
			owners[name] = h
		}
	}
	return owners
}

// bindPort binds or opens the port of a running pod; e says which, and what else it may send. A pod that a guard would cut off is left
// as it is, with an error.
func (m *Manager) bindPort(ctx context.Context, p podlink.Port, h holder.Holder, e guard.Entry) error {
	end, err := p.End()
	if err != nil && e.Mode == api.GuardPods {
		return err
	}
	var addrs []netip.Addr
	for _, l := range m.lookup(h) {
		addrs = append(addrs, l.Addr)
	}
	e.Owner = h.String()
	e.Port = guard.Port{Link: p.Name, MAC: end.MAC, Addrs: addrs, Allow: e.Allow}
	if e.Mode == api.GuardPods {
		if err := fits(end, e.Port); err != nil {
			return err
		}
		if err := m.foreignMAC(h, end.MAC); err != nil {
			return err
		}
	} else if e.MAC.IsZero() {
		e.MAC = macFor(addrs)
	}
	if _, known := m.cfg.Guards.Guard(p.Name); known || !hostnet.LinkExists(p.Name) {
		return nil // a request was faster, or the pod is gone
	}
	return m.cfg.Guards.SetGuard(ctx, e)
}

// macFor returns the MAC that a pod with leased addresses has unless it was given another one.
func macFor(addrs []netip.Addr) ether.Addr {
	if len(addrs) == 0 {
		return ether.Addr{}
	}
	return ether.FromIP(addrs[0])
}

// fits returns an error if a guard would drop what a running pod sends, as far as its interface shows that.
func fits(end podlink.End, p guard.Port) error {
	if end.MAC.IsZero() || end.MAC.IsMulticast() {
		return errors.New("its interface has no MAC")
	}
	if end.Lower {
		return errors.New("other interfaces inside it send through its own, as of a bridge or a virtual machine")
	}
	has6 := slices.ContainsFunc(p.Addrs, netip.Addr.Is6)
	for _, a := range end.Addrs {
		allowed := slices.Contains(p.Addrs, a) || slices.ContainsFunc(p.Allow, func(in netip.Prefix) bool { return in.Contains(a) })
		// Without an IPv6 address, a pod has no use for a link-local one.
		expected := a.Is6() && a.IsLinkLocalUnicast() && (!has6 || a == end.MAC.LinkLocal())
		if !allowed && !expected {
			return fmt.Errorf("it uses %s, which is not leased to it", a)
		}
	}
	return nil
}

// foreignMAC returns an error if a MAC is that of another pod: a pod can give itself any.
func (m *Manager) foreignMAC(h holder.Holder, mac ether.Addr) error {
	for _, e := range m.cfg.Guards.Guards() {
		if e.MAC == mac && e.Owner != h.String() {
			return fmt.Errorf("it uses the MAC %s of %s", mac, e.Owner)
		}
	}
	for _, l := range m.cfg.Allocator.Leases() {
		if l.Holder != h.String() && ether.FromIP(l.Addr) == mac {
			return fmt.Errorf("it uses the MAC %s of %s", mac, l.Holder)
		}
	}
	return nil
}

// guardAgain binds a running pod that is attached again without a request about its guard, unless that would cut it off.
func (m *Manager) guardAgain(ctx context.Context, h holder.Holder, e guard.Entry) error {
	err := m.guardUnknown(ctx, h, e)
	if refused, ok := errors.AsType[*hint.Error](err); ok && refused.Kind == hint.NotFound {
		return nil // a condition names it
	}
	return err
}

// guardUnknown answers a request for a container that runs without a guard.
func (m *Manager) guardUnknown(ctx context.Context, h holder.Holder, e guard.Entry) error {
	unknown := func(err error) error {
		return hint.New(hint.NotFound, "Attach it again.", "the port of %q cannot be bound: %w", h, err)
	}
	ports, err := podlink.Ports(m.cfg.Bridge)
	if err != nil {
		return unknown(err)
	}
	i := slices.IndexFunc(ports, func(p podlink.Port) bool { return slices.Contains(h.PossibleLinks(), p.Name) })
	if i < 0 || len(m.lookup(h)) == 0 {
		return unknown(errors.New("nothing is known about it"))
	}
	err = m.bindPort(ctx, ports[i], h, e)
	if err == nil {
		m.log.Info("guarded a running pod as requested", "port", ports[i].Name, "holder", h, "guard", e.Mode)
		return nil
	}
	if _, refused := errors.AsType[*hint.Error](err); refused {
		return err // the rules cannot be set
	}
	m.unguarded.note(ports[i].Name, unguardedPod{owner: h.String(), why: err})
	return unknown(err)
}

// holderOf returns the holder of the lease of one of some addresses.
func (m *Manager) holderOf(addrs []netip.Addr) (holder.Holder, bool) {
	for _, l := range m.cfg.Allocator.Leases() {
		if h := holder.Parse(l.Holder); h.Kind == holder.Container && slices.Contains(addrs, l.Addr) {
			return h, true
		}
	}
	return holder.Holder{}, false
}
