package leases

import (
	"context"
	"errors"
	"net/netip"
	"slices"

	"weft/internal/api"
	"weft/internal/guard"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/ipam"
)

// attachAgain attaches a namespace in which the interface exists. If the pair is that of h, it takes over what differs from spec: nothing
// where the request is the same as before. before are the leases that h had, guarded is the guard that the pair had.
func (m *Manager) attachAgain(ctx context.Context, in api.AttachRequest, h holder.Holder, spec podlink.Spec, before []ipam.Lease,
	guarded *guardedBefore) (api.Attachment, error) {
	have, _, err := m.cfg.Links.Addresses(in.Netns, in.Ifname)
	if err == nil && len(in.IPs) == 0 {
		spec.Addresses = append(spec.Addresses, m.keptAddresses(spec, have, before)...)
		err = m.attachGuard(ctx, h, in, spec)
	}
	drop := m.droppedAddresses(h, spec, have, slices.Concat(in.Allow, guarded.entry.Allow))
	if err == nil && (len(drop) > 0 || m.cfg.Links.Check(exactly(spec)) != nil) {
		err = m.cfg.Links.Adopt(ctx, spec, drop)
		if errors.Is(err, podlink.ErrNoLink) { // the interface of that name is not the one of h
			err = errors.Join(podlink.ErrExists, err)
		}
	}
	if err == nil {
		err = m.renamed(in.Hostname, h, spec.Addresses)
	}
	if err != nil {
		return api.Attachment{}, errors.Join(explainLink(err), m.releaseNew(h, before), guarded.restore(ctx))
	}
	for _, addr := range drop {
		err = errors.Join(err, m.releaseIfLeased(h, addr))
	}
	m.hardenPort(spec.HostName)
	m.followGateways()
	return m.attachment(h, spec), err
}

// exactly returns a Spec that Check compares with the MAC that Attach would choose.
func exactly(spec podlink.Spec) podlink.Spec {
	spec.MAC = spec.PodMAC()
	return spec
}

// keptAddresses returns the addresses of an interface that are leased to its holder and not in spec: without a request for certain
// addresses, all that were requested before stay.
func (m *Manager) keptAddresses(spec podlink.Spec, have []netip.Prefix, before []ipam.Lease) (kept []podlink.Address) {
	for _, p := range have {
		wanted := slices.ContainsFunc(spec.Addresses, func(a podlink.Address) bool { return a.Prefix.Addr() == p.Addr() })
		if !wanted && leasedTo(before, p.Addr()) {
			kept = append(kept, podlink.Address{Prefix: p})
		}
	}
	return kept
}

// droppedAddresses returns the addresses of the overlay that an interface has and that it must not have after a request: those that were
// its own before, and those that this node leased to no other holder. Addresses that it may use beside its own stay.
func (m *Manager) droppedAddresses(h holder.Holder, spec podlink.Spec, have []netip.Prefix, allow []netip.Prefix) (drop []netip.Addr) {
	leases := m.cfg.Allocator.Leases()
	for _, p := range have {
		addr := p.Addr()
		keep := !m.inRanges(addr) ||
			slices.ContainsFunc(spec.Addresses, func(a podlink.Address) bool { return a.Prefix.Addr() == addr }) ||
			slices.ContainsFunc(allow, func(a netip.Prefix) bool { return a.Contains(addr) }) ||
			slices.ContainsFunc(leases, func(l ipam.Lease) bool { return l.Addr == addr && l.Holder != h.String() })
		if !keep {
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
