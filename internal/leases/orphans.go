package leases

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"time"

	"weft/internal/hostnet"
	"weft/internal/leases/holder"
	"weft/internal/podlink"
	"weft/ipam"
)

// An orphan is a pod link on the bridge that no lease is for: ipam.db was moved away or lost, the node's address space was
// reclaimed, or the address comes from another IPAM plugin. Its addresses are held, so that no other pod gets them, until the
// pod is gone or its holder asks for an address again. See docs/adr/0024-pods-without-a-lease.md.

// How often orphans are looked for: often while there are any, so that their addresses are free again soon.
const (
	orphanPeriod     = 15 * time.Second
	orphanPeriodBusy = 2 * time.Second
)

// maxOrphanAddresses bounds how many addresses of one pod are held: a privileged pod can give itself any number.
const maxOrphanAddresses = 16

// survey is the result of one search for orphans. It is not changed.
type survey struct {
	ports   []podlink.Port       // orphans, with their addresses inside the ranges
	bridge  []netip.Addr         // of the bridge itself, as far as no lease is for them
	refused map[netip.Addr]error // why another node did not lease an address to this one
	err     error                // why the search failed; then the rest is empty
}

// lostLease reports whether an orphan had a lease of weft; pods of other IPAM plugins never had one.
func lostLease(p podlink.Port) bool { return !p.Delegated }

// orphansAmong returns those of ports that no lease is for, and the host ends of orphans' leases that no longer exist.
func orphansAmong(ports []podlink.Port, leases []ipam.Lease, exists func(name string) bool) (orphans []podlink.Port, gone []string) {
	leased := make(map[string]bool)
	for _, l := range leases {
		h := holder.Parse(l.Holder)
		if h.Kind == holder.Orphan {
			if !slices.Contains(gone, h.Link) && !exists(h.Link) {
				gone = append(gone, h.Link)
			}
			continue
		}
		for _, name := range h.PossibleLinks() {
			leased[name] = true
		}
	}
	for _, p := range ports {
		if !leased[p.Name] {
			orphans = append(orphans, p)
		}
	}
	return orphans, gone
}

// findOrphans looks for orphans, holds their addresses, and ends what was held for those that are gone. It asks no other node.
//
// The order of its steps distinguishes an orphan from a pod that starts or stops: a lease exists before its pair is made and until its
// pair is gone. So a pair that exists before the leases are read and afterwards, and has no lease, is an orphan.
func (m *Manager) findOrphans() {
	m.surveyMu.Lock()
	defer m.surveyMu.Unlock()
	last := m.survey.Load()
	found, held, err := m.searchOrphans()
	if err == nil {
		err = m.cfg.Allocator.Hold(held)
	}
	if err != nil {
		if last == nil || last.err == nil { // log once
			m.log.Warn("cannot look for pods without a lease", "err", err)
		}
		found = &survey{err: err}
	} else if last != nil {
		found.refused = last.refused
	}
	m.survey.Store(found)
}

// searchOrphans returns the orphans, and the addresses to hold by holder. It ends the leases of orphans that are gone.
// surveyMu is held.
func (m *Manager) searchOrphans() (*survey, map[netip.Addr]string, error) {
	ports, err := podlink.Ports(m.cfg.Bridge)
	if err != nil {
		return nil, nil, err
	}
	bridge, err := m.cfg.Host.BridgeAddresses()
	if err != nil {
		return nil, nil, err
	}
	leases := m.cfg.Allocator.Leases()
	ports, gone := orphansAmong(ports, leases, hostnet.LinkExists)
	for _, name := range gone {
		m.endOrphan(name)
	}
	found, held := &survey{}, make(map[netip.Addr]string)
	for _, p := range ports {
		if !p.Look() {
			continue
		}
		p.Addrs = slices.DeleteFunc(p.Addrs, func(a netip.Addr) bool { return !m.inRanges(a) })
		p.Addrs = p.Addrs[:min(len(p.Addrs), maxOrphanAddresses)]
		if len(p.Addrs) == 0 && p.Err == nil {
			continue // it has no address of the overlay
		}
		found.ports = append(found.ports, p)
		for _, a := range p.Addrs {
			held[a] = holder.ForOrphan(p.Name).String()
		}
	}
	for _, p := range bridge {
		if !leasedTo(leases, p.Addr()) {
			found.bridge = append(found.bridge, p.Addr())
			held[p.Addr()] = holder.ForHost().String()
		}
	}
	return found, held, nil
}

func leasedTo(leases []ipam.Lease, addr netip.Addr) bool {
	return slices.ContainsFunc(leases, func(l ipam.Lease) bool { return l.Addr == addr })
}

// endOrphan ends the lease of an orphan that is gone; link is the name of its host end.
func (m *Manager) endOrphan(link string) {
	h := holder.ForOrphan(link)
	if err := m.cfg.Allocator.Release(h.String(), netip.Addr{}); err != nil {
		if !errors.Is(err, ipam.ErrUnknownOwner) {
			m.log.Warn("cannot end the lease of a pod that is gone", "holder", h, "err", err)
		}
		return
	}
	m.freed.Add(1)
	m.log.Info("ended a lease because its pod is gone", "holder", h)
}

// endOrphansOf ends the leases that were held for pairs of h which no longer exist, and reports whether there were any.
func (m *Manager) endOrphansOf(h holder.Holder) (ended bool) {
	for _, name := range h.PossibleLinks() {
		if len(m.lookup(holder.ForOrphan(name))) > 0 && !hostnet.LinkExists(name) {
			m.endOrphan(name)
			ended = true
		}
	}
	return ended
}

// adopt transfers to h the leases that were held for its pair: the holder of that orphan is now known.
func (m *Manager) adopt(h holder.Holder) error {
	for _, name := range h.PossibleLinks() {
		err := m.cfg.Allocator.Reassign(holder.ForOrphan(name).String(), h.String())
		if errors.Is(err, ipam.ErrUnknownOwner) {
			continue
		} else if err != nil {
			return Explain(err)
		}
		m.log.Info("the holder of a pod without a lease is known again", "holder", h, "link", name)
		m.Recheck()
	}
	return nil
}

// adoptKnown transfers what is held for orphans to their holders, where those are known: by a lease that was lost, by a name, or because
// the pair has the name that "weft attach" gives to the pair of a named namespace.
func (m *Manager) adoptKnown() {
	ports := m.survey.Load().ports
	if len(ports) == 0 {
		return
	}
	var known []holder.Holder
	for _, l := range m.cfg.Allocator.Lost() {
		known = append(known, holder.Parse(l.Holder))
	}
	for _, n := range m.cfg.Names.Held() {
		known = append(known, n.Holder)
	}
	spaces := podlink.NamedSpaces(ports)
	for _, p := range ports {
		if ifname, err := p.Ifname(); err == nil && spaces[p.Name] != "" {
			known = append(known, holder.ForNamespace(spaces[p.Name], ifname))
		}
	}
	for _, h := range known {
		for _, p := range ports {
			if !slices.Contains(h.PossibleLinks(), p.Name) || len(m.lookup(holder.ForOrphan(p.Name))) == 0 {
				continue
			}
			if err := m.adopt(h); err != nil {
				m.log.Warn("cannot give a pod its lease back", "holder", h, "err", err)
			}
		}
	}
}

// heldFor returns the leases that are held for pairs of h.
func (m *Manager) heldFor(h holder.Holder) (leases []ipam.Lease) {
	for _, name := range h.PossibleLinks() {
		leases = append(leases, m.lookup(holder.ForOrphan(name))...)
	}
	return leases
}

// watchOrphans looks for orphans periodically, and claims their addresses from the nodes that own them, until ctx ends.
func (m *Manager) watchOrphans(ctx context.Context) {
	for {
		m.findOrphans()
		m.claimOrphans(ctx)
		m.adoptKnown()
		m.endStaleNames()
		m.dismissLost()
		m.followGateways()
		pause := orphanPeriod
		if slices.ContainsFunc(m.survey.Load().ports, lostLease) || m.hasStranded() {
			pause = orphanPeriodBusy
		}
		select {
		case <-ctx.Done():
			return
		case <-m.recheck.C():
		case <-time.After(pause):
		}
	}
}
