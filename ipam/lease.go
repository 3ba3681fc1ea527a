package ipam

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"weft/ipam/store"
)

// Lease records that a holder has an address.
type Lease struct {
	Holder string       // as the caller named it
	Addr   netip.Addr   // leased once in the network
	Bits   int          // the prefix length to configure Addr with: that of In
	In     netip.Prefix // the prefix that was requested: the whole range, or a part of it
	Since  time.Time    // when it was allocated
}

// Prefix returns the address with its prefix length, as it is configured on an interface: 10.32.0.1/12.
func (l Lease) Prefix() netip.Prefix { return netip.PrefixFrom(l.Addr, l.Bits) }

// leaseOf returns a lease as it was stored.
func leaseOf(l store.Lease) Lease {
	return Lease{Holder: l.Holder, Addr: l.Addr, In: l.In, Bits: l.In.Bits(), Since: l.Since}
}

func (l Lease) stored() store.Lease {
	return store.Lease{Holder: l.Holder, Addr: l.Addr, In: l.In, Since: l.Since}
}

// leaseTable finds leases by address and by holder. The zero table is empty. It is guarded by the Allocator's mu.
type leaseTable struct {
	byAddr   map[netip.Addr]Lease
	byHolder map[string][]netip.Addr // sorted
	byIn     map[netip.Prefix]int    // number of leases by the prefix that was requested
}

func (t *leaseTable) put(l Lease) {
	if t.byAddr == nil {
		t.byAddr = make(map[netip.Addr]Lease)
		t.byHolder = make(map[string][]netip.Addr)
		t.byIn = make(map[netip.Prefix]int)
	}
	t.byAddr[l.Addr] = l
	t.byIn[l.In]++
	addrs := append(t.byHolder[l.Holder], l.Addr)
	slices.SortFunc(addrs, netip.Addr.Compare)
	t.byHolder[l.Holder] = addrs
}

func (t *leaseTable) remove(addr netip.Addr) {
	l, ok := t.byAddr[addr]
	if !ok {
		return
	}
	delete(t.byAddr, addr)
	if t.byIn[l.In]--; t.byIn[l.In] == 0 {
		delete(t.byIn, l.In)
	}
	rest := slices.DeleteFunc(t.byHolder[l.Holder], func(a netip.Addr) bool { return a == addr })
	if len(rest) == 0 {
		delete(t.byHolder, l.Holder)
		return
	}
	t.byHolder[l.Holder] = rest
}

// parts returns the parts of a range for which there are leases, in any order: subnets of their own.
func (t *leaseTable) parts(whole netip.Prefix) []netip.Prefix {
	var parts []netip.Prefix
	for in := range t.byIn {
		if in != whole && whole.Contains(in.Addr()) {
			parts = append(parts, in)
		}
	}
	return parts
}

// of returns the leases of holder, sorted by address.
func (t *leaseTable) of(holder string) []Lease {
	var leases []Lease
	for _, addr := range t.byHolder[holder] {
		leases = append(leases, t.byAddr[addr])
	}
	return leases
}

// in returns the lease of holder that was requested with the prefix in.
func (t *leaseTable) in(holder string, in netip.Prefix) (Lease, bool) {
	for _, addr := range t.byHolder[holder] {
		if l := t.byAddr[addr]; l.In == in {
			return l, true
		}
	}
	return Lease{}, false
}

// all returns all leases, sorted by holder, then by address.
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
