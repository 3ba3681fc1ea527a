package session

import (
	"net/netip"
	"slices"
)

// TrustList is a set of addresses to and from which a node allows frames to be sent unsealed. It is an immutable value; the
// zero TrustList is empty.
type TrustList struct {
	all      bool
	prefixes []netip.Prefix
	except   netip.Prefix // contains no trusted address
}

// TrustAll returns the set of all addresses, for a node without secrets.
func TrustAll() TrustList { return TrustList{all: true} }

// TrustPrefixes returns the set of the addresses in prefixes, without those in except. It does not keep the slice.
// except is for addresses that stand for something else than a host: whatever an operator trusts, it is not those. The zero
// Prefix excludes nothing.
func TrustPrefixes(prefixes []netip.Prefix, except netip.Prefix) TrustList {
	return TrustList{prefixes: slices.Clone(prefixes), except: except}
}

// Contains reports whether addr is in the set. An IPv4 address mapped to IPv6 counts as IPv4.
func (t TrustList) Contains(addr netip.Addr) bool {
	if t.all {
		return true
	}
	addr = addr.Unmap()
	if t.except.Contains(addr) {
		return false
	}
	for _, p := range t.prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
