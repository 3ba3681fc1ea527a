package ipam

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"weft/ipam/store"
)

// Lease says that an owner holds an address.
type Lease struct {
	Holder string       // who holds it, in the words of the caller
	Addr   netip.Addr   // held by nobody else in the network
	Bits   int          // the prefix length to configure Addr with: that of In
	In     netip.Prefix // what the address was asked for from: the whole range, or a part of it
	Since  time.Time    // when it was given out
}

// Prefix is the address with its length, as a person or an interface wants it: 10.32.0.1/12.
func (l Lease) Prefix() netip.Prefix { return netip.PrefixFrom(l.Addr, l.Bits) }

func (l Lease) stored() store.Lease {
	return store.Lease{Holder: l.Holder, Addr: l.Addr, In: l.In, Since: l.Since}
}

// leaseTable finds leases by address and by owner. The zero table is empty. It is guarded by the Allocator's mu.
type leaseTable struct {
	byAddr  map[netip.Addr]Lease
	byOwner map[string][]netip.Addr // sorted
}

func (t *leaseTable) put(l Lease) {
	if t.byAddr == nil {
		t.byAddr = make(map[netip.Addr]Lease)
		t.byOwner = make(map[string][]netip.Addr)
	}
	t.byAddr[l.Addr] = l
	addrs := append(t.byOwner[l.Holder], l.Addr)
	slices.SortFunc(addrs, netip.Addr.Compare)
	t.byOwner[l.Holder] = addrs
}

func (t *leaseTable) remove(addr netip.Addr) {
	l, ok := t.byAddr[addr]
	if !ok {
		return
	}
	delete(t.byAddr, addr)
	rest := slices.DeleteFunc(t.byOwner[l.Holder], func(a netip.Addr) bool { return a == addr })
	if len(rest) == 0 {
		delete(t.byOwner, l.Holder)
		return
	}
	t.byOwner[l.Holder] = rest
}

// of returns owner's leases, sorted by address.
func (t *leaseTable) of(owner string) []Lease {
	var leases []Lease
	for _, addr := range t.byOwner[owner] {
		leases = append(leases, t.byAddr[addr])
	}
	return leases
}

// in returns the lease that owner was given when it asked for an address in a range.
func (t *leaseTable) in(owner string, in netip.Prefix) (Lease, bool) {
	for _, addr := range t.byOwner[owner] {
		if l := t.byAddr[addr]; l.In == in {
			return l, true
		}
	}
	return Lease{}, false
}

// all returns all leases, sorted by owner, then by address.
func (t *leaseTable) all() []Lease {
	leases := make([]Lease, 0, len(t.byAddr))
	for _, l := range t.byAddr {
		leases = append(leases, l)
	}
	slices.SortFunc(leases, func(a, b Lease) int {
		if c := cmp.Compare(a.Holder, b.Holder); c != 0 {
			return c
		}
		return a.Addr.Compare(b.Addr)
	})
	return leases
}
