package policy

import (
	"net/netip"
	"slices"
)

// multiset is a set of addresses that counts how often each was added: several pods may have one address for a moment, and
// several terms may select one pod. Changes count when they are flushed. The zero multiset is empty.
type multiset struct {
	sorted  []netip.Addr       // without duplicates
	more    map[netip.Addr]int // how often an address was added beyond the first time; nil: none
	pending map[netip.Addr]int // changes that were not flushed: how often each address is to be added, never 0
}

// fewChanges is the number of changes up to which each is made in place; more are merged in one pass.
const fewChanges = 16

// add adds addresses n times, or removes them for a negative n.
func (m *multiset) add(addrs []netip.Addr, n int) {
	if m.pending == nil {
		m.pending = map[netip.Addr]int{}
	}
	for _, a := range addrs {
		if m.pending[a] += n; m.pending[a] == 0 {
			delete(m.pending, a)
		}
	}
}

// flush makes the pending changes, and returns the addresses that became elements and that ceased to be, sorted.
func (m *multiset) flush() (added, removed []netip.Addr) {
	for a, n := range m.pending {
		before := m.count(a)
		now := before + n
		switch {
		case before == 0:
			added = append(added, a)
		case now == 0:
			removed = append(removed, a)
		}
		m.setMore(a, now-1)
	}
	m.pending = nil
	slices.SortFunc(added, netip.Addr.Compare)
	slices.SortFunc(removed, netip.Addr.Compare)
	if len(added)+len(removed) > fewChanges {
		m.merge(added, removed)
		return added, removed
	}
	for _, a := range removed {
		i, _ := slices.BinarySearchFunc(m.sorted, a, netip.Addr.Compare)
		m.sorted = slices.Delete(m.sorted, i, i+1)
	}
	for _, a := range added {
		i, _ := slices.BinarySearchFunc(m.sorted, a, netip.Addr.Compare)
		m.sorted = slices.Insert(m.sorted, i, a)
	}
	return added, removed
}

// count returns how often an address was added.
func (m *multiset) count(a netip.Addr) int {
	if _, ok := slices.BinarySearchFunc(m.sorted, a, netip.Addr.Compare); !ok {
		return 0
	}
	return 1 + m.more[a]
}

func (m *multiset) setMore(a netip.Addr, n int) {
	if n <= 0 {
		delete(m.more, a)
		return
	}
	if m.more == nil {
		m.more = map[netip.Addr]int{}
	}
	m.more[a] = n
}

// merge makes many changes of elements in one pass. Both lists are sorted.
func (m *multiset) merge(added, removed []netip.Addr) {
	out := make([]netip.Addr, 0, len(m.sorted)+len(added)-len(removed))
	for _, a := range m.sorted {
		for len(added) > 0 && added[0].Less(a) {
			out, added = append(out, added[0]), added[1:]
		}
		if len(removed) > 0 && removed[0] == a {
			removed = removed[1:]
			continue
		}
		out = append(out, a)
	}
	m.sorted = append(out, added...)
}

// clone returns a copy of the elements.
func (m *multiset) clone() []netip.Addr { return slices.Clone(m.sorted) }

// settled reports whether nothing is pending.
func (m *multiset) settled() bool { return len(m.pending) == 0 }
