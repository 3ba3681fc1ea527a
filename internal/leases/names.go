package leases

import (
	"net/netip"
	"slices"
	"sync"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/hostnet"
	"weft/internal/leases/holder"
	"weft/ipam"
)

// A name of an attachment ("weft attach --hostname"), or of the owner that a client named, lasts as long as the lease of its address. It
// also ends where the lease was lost with the address space, or with ipam.db: the address may belong to another pod then.

// AddName gives addresses that are leased to the owner of a request a name, which ends with the lease.
func (m *Manager) AddName(in api.NameRequest) error {
	h, err := clientHolder(in.Owner)
	if err != nil {
		return err
	}
	leases := m.lookup(h)
	if len(leases) == 0 {
		return hint.New(hint.NotFound, "\"weft ip list\" shows the owners of this node.", "no address is leased to %q on this node", in.Owner)
	}
	ips := make([]netip.Addr, 0, len(in.IPs))
	for _, ip := range in.IPs {
		if ips = append(ips, ip.Unmap()); !leasedTo(leases, ip.Unmap()) {
			return hint.New(hint.Refused, "\"weft ip list\" shows the addresses of the owner.", "%s is not leased to %q on this node", ip, in.Owner)
		}
	}
	if err := m.cfg.Names.Add(in.Name, h, ips...); err != nil {
		return err
	}
	for _, ip := range ips { // the leases may have ended meanwhile
		if !leasedTo(m.lookup(h), ip) {
			m.cfg.Names.Release(h, ip)
		}
	}
	return nil
}

// RemoveName removes a name of the owner of a request from addresses, or from all of its addresses if the request has none.
func (m *Manager) RemoveName(in api.NameRequest) error {
	h, err := clientHolder(in.Owner)
	if err != nil {
		return err
	}
	name, err := m.cfg.Names.Canonical(in.Name)
	if err != nil {
		return err
	}
	var of []netip.Addr
	for _, ip := range m.namesOf(h)[name] {
		if len(in.IPs) == 0 || slices.ContainsFunc(in.IPs, func(a netip.Addr) bool { return a.Unmap() == ip }) {
			of = append(of, ip)
		}
	}
	if len(of) == 0 {
		return hint.New(hint.NotFound, "\"weft dns list\" shows the names and their owners.", "%q has no such name on this node: %q",
			in.Owner, in.Name)
	}
	return m.cfg.Names.Remove(name, of...)
}

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
