package leases

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/guard"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/ipam"
)

// attachAgain attaches a namespace in which the interface exists. If the pair is that of h, it takes over what differs from spec: nothing
// where the request is the same as before. before are the leases that h had, guarded is the guard that the pair had. A failure undoes
// everything.
func (m *Manager) attachAgain(ctx context.Context, in api.AttachRequest, h holder.Holder, spec podlink.Spec, before []ipam.Lease,
	guarded *guardedBefore) (api.Attachment, error) {
	have, mac, err := m.cfg.Links.Addresses(in.Netns, in.Ifname)
	drop := m.droppedAddresses(h, spec, have, before, slices.Concat(in.Allow, guarded.entry.Allow), len(in.IPs) > 0 && !isChange(in))
	changed := false
	if err == nil && (len(drop) > 0 || m.cfg.Links.Check(exactly(spec)) != nil) {
		err = m.cfg.Links.Adopt(ctx, spec, drop)
		if errors.Is(err, podlink.ErrNoLink) { // the interface of that name is not the one of h
			err = errors.Join(podlink.ErrExists, err)
		}
		changed = !errors.Is(err, podlink.ErrExists)
	}
	if err == nil {
		err = m.renamed(in.Hostname, h, spec.Addresses)
	}
	if err != nil {
		if changed {
			m.undoAdopt(context.WithoutCancel(ctx), spec, have, mac)
		}
		return api.Attachment{}, errors.Join(explainLink(err), m.releaseUnused(in, h, before), guarded.restore(ctx))
	}
	for _, addr := range drop {
		err = errors.Join(err, m.releaseIfLeased(h, addr))
	}
	err = errors.Join(err, m.releaseRemoved(in, h, spec))
	m.hardenPort(spec.HostName)
	m.followGateways()
	return m.attachment(h, spec), err
}

// undoAdopt gives a pair the addresses and the MAC that it had before Adopt.
func (m *Manager) undoAdopt(ctx context.Context, spec podlink.Spec, have []netip.Prefix, mac ether.Addr) {
	var drop []netip.Addr
	for _, a := range spec.Addresses {
		if addr := a.Prefix.Addr(); !slices.ContainsFunc(have, func(p netip.Prefix) bool { return p.Addr() == addr }) {
			drop = append(drop, addr)
		}
	}
	spec.Addresses, spec.MAC = nil, mac
	for _, p := range have {
		if m.inRanges(p.Addr()) {
			spec.Addresses = append(spec.Addresses, podlink.Address{Prefix: p})
		}
	}
	if err := m.cfg.Links.Adopt(ctx, spec, drop); err != nil {
		m.log.Warn("undoing a change of an attachment failed", "port", spec.HostName, "err", err)
	}
}

// releaseUnused is releaseNew except for addresses that the interface has all the same: no other pod may get these.
func (m *Manager) releaseUnused(in api.AttachRequest, h holder.Holder, before []ipam.Lease) error {
	have, _, err := m.cfg.Links.Addresses(in.Netns, in.Ifname)
	if err != nil && !errors.Is(err, podlink.ErrNetns) && !errors.Is(err, podlink.ErrNoLink) {
		return err
	}
	for _, l := range m.lookup(h) {
		if slices.ContainsFunc(have, func(p netip.Prefix) bool { return p.Addr() == l.Addr }) {
			before = append(before, l)
		}
	}
	return m.releaseNew(h, before)
}

// exactly returns a Spec that Check compares with the MAC that Attach would choose.
func exactly(spec podlink.Spec) podlink.Spec {
	spec.MAC = spec.PodMAC()
	return spec
}

// asBefore returns spec with what a request without certain addresses leaves as it was: all addresses that were requested before, with
// their prefix lengths, and the MAC that belongs to one of them.
func (m *Manager) asBefore(in api.AttachRequest, spec podlink.Spec, before []ipam.Lease) podlink.Spec {
	if isChange(in) {
		return m.keepMAC(in, spec)
	}
	if len(in.IPs) > 0 || len(before) == 0 {
		return spec
	}
	have, mac, err := m.cfg.Links.Addresses(in.Netns, in.Ifname)
	if err != nil {
		return spec // there is no such interface, or Attach returns the error
	}
	for _, p := range have {
		if !leasedTo(before, p.Addr()) {
			continue
		}
		if mac == ether.FromIP(p.Addr()) {
			spec.MAC = mac
		}
		i := slices.IndexFunc(spec.Addresses, func(a podlink.Address) bool { return a.Prefix.Addr() == p.Addr() })
		if i < 0 {
			spec.Addresses = append(spec.Addresses, podlink.Address{Prefix: p})
			continue
		}
		spec.Addresses[i].Prefix = p
		if !p.Contains(spec.Addresses[i].Gateway) {
			spec.Addresses[i].Gateway = netip.Addr{}
		}
	}
	return spec
}

// droppedAddresses returns the addresses of the overlay that an interface has and that it must not have after a request: those that were
// leased to its holder, before or until the lease was lost, and all without a lease in a range in which the holder had none. Others, such
// as one that the pod has given itself beside its own, stay unless the request is for certain addresses.
func (m *Manager) droppedAddresses(h holder.Holder, spec podlink.Spec, have []netip.Prefix, before []ipam.Lease,
	allow []netip.Prefix, certain bool) (drop []netip.Addr) {
	leases, lost := m.cfg.Allocator.Leases(), m.cfg.Allocator.Lost()
	for _, p := range have {
		addr := p.Addr()
		keep := !m.inRanges(addr) ||
			slices.ContainsFunc(spec.Addresses, func(a podlink.Address) bool { return a.Prefix.Addr() == addr }) ||
			slices.ContainsFunc(allow, func(a netip.Prefix) bool { return a.Contains(addr) }) ||
			slices.ContainsFunc(leases, func(l ipam.Lease) bool { return l.Addr == addr && l.Holder != h.String() })
		own := certain || leasedTo(before, addr) ||
			slices.ContainsFunc(lost, func(l ipam.LostLease) bool { return l.Addr == addr && l.Holder == h.String() }) ||
			!slices.ContainsFunc(before, func(l ipam.Lease) bool { return m.rangeOf(l.Addr) == m.rangeOf(addr) })
		if own && !keep {
			drop = append(drop, addr)
		}
	}
	return drop
}

// renamed gives the addresses of an attachment the requested name instead of the ones that it had, or those that it had if none is
// requested.
func (m *Manager) renamed(name string, h holder.Holder, addrs []podlink.Address) error {
	had := m.namesOf(h)
	for _, former := range m.former.take(h) {
		if _, held := had[former]; !held {
			had[former] = nil
		}
	}
	if name != "" {
		if err := m.name(name, h, addrs); err != nil {
			return err
		}
	}
	for old, of := range had {
		switch {
		case name == "":
			if err := m.name(old, h, addrs); err != nil {
				return err
			}
		case old != name && len(of) > 0:
			if err := m.cfg.Names.Remove(old, of...); err != nil {
				return err
			}
		}
	}
	return nil
}

// namesOf returns the names of a holder, with their addresses.
func (m *Manager) namesOf(h holder.Holder) map[string][]netip.Addr {
	names := map[string][]netip.Addr{}
	for _, n := range m.cfg.Names.Held() {
		if n.Holder == h {
			names[n.Name] = append(names[n.Name], n.Addr)
		}
	}
	return names
}

// guardedBefore is the guard of a port before a request changed it.
type guardedBefore struct {
	guards Guards
	link   string
	entry  guard.Entry
	known  bool
}

// rememberGuard returns the present guard of a port.
func (m *Manager) rememberGuard(link string) *guardedBefore {
	g := &guardedBefore{guards: m.cfg.Guards, link: link}
	g.entry, g.known = m.cfg.Guards.Guard(link)
	return g
}

// restore sets the guard again as it was.
func (g *guardedBefore) restore(ctx context.Context) error {
	_, known := g.guards.Guard(g.link)
	switch {
	case !g.known && known:
		return g.guards.EndGuard(ctx, g.link)
	case g.known:
		return g.guards.SetGuard(ctx, g.entry)
	}
	return nil
}
