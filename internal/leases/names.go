package leases

import (
	"slices"
	"sync"

	"weft/internal/hostnet"
	"weft/internal/leases/holder"
	"weft/ipam"
)

// A name that "weft attach --hostname" has given to an address lasts as long as the lease. It also ends where the lease was lost with the
// address space, or with ipam.db: the address may belong to another pod then.

// endStaleNames removes names without a lease.
func (m *Manager) endStaleNames() {
	held, survey := m.cfg.Names.Held(), m.survey.Load()
	leases := m.cfg.Allocator.Leases() // read last: a new pod has a lease before it has a name
	for _, n := range held {
		if !m.nameIsStale(n, leases, survey) {
			continue
		}
		if slices.ContainsFunc(n.Holder.PossibleLinks(), hostnet.LinkExists) {
			m.former.put(n.Holder, n.Name)
		}
		if err := m.cfg.Names.Remove(n.Name, n.Addr); err != nil {
			m.log.Warn("cannot remove a name without a lease", "name", n.Name, "addr", n.Addr, "err", err)
			continue
		}
		m.log.Info("removed a name because its lease is gone", "name", n.Name, "addr", n.Addr, "holder", n.Holder)
	}
}

// formerNames are names that ended while their pod runs on: it gets them again when it is attached again. The zero value is empty.
type formerNames struct {
	mu    sync.Mutex
	names map[holder.Holder][]string // guarded by mu
}

// put records a name of a holder.
func (f *formerNames) put(h holder.Holder, name string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.names == nil {
		f.names = map[holder.Holder][]string{}
	}
	if !slices.Contains(f.names[h], name) {
		f.names[h] = append(f.names[h], name)
	}
}

// take returns the names of a holder, and forgets them.
func (f *formerNames) take(h holder.Holder) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := f.names[h]
	delete(f.names, h)
	return names
}

// nameIsStale reports whether a name is of an address that is neither leased to its holder nor to the holder's pair, and that its pair does
// not use either with a chance to get a lease again. A name that an operator gave to an address needs no lease.
func (m *Manager) nameIsStale(n HeldName, leases []ipam.Lease, survey *survey) bool {
	if n.Holder.Kind == holder.Names {
		return false
	}
	if _, divided := m.cfg.Allocator.ClusterIDs()[m.rangeOf(n.Addr)]; !divided || survey.err != nil {
		return false // leases are not known yet
	}
	links := n.Holder.PossibleLinks()
	for _, l := range leases {
		if l.Addr == n.Addr {
			h := holder.Parse(l.Holder)
			return h != n.Holder && (h.Kind != holder.Orphan || !slices.Contains(links, h.Link))
		}
	}
	for _, p := range survey.ports {
		if slices.Contains(links, p.Name) && (p.Err != nil || slices.Contains(p.Addrs, n.Addr)) {
			return survey.refused[n.Addr] != nil
		}
	}
	return true
}
