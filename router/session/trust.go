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
}

// TrustAll returns the set of all addresses, for a node without secrets.
func TrustAll() TrustList { return TrustList{all: true} }

// TrustPrefixes returns the set of the addresses in prefixes. It does not keep the slice.
func TrustPrefixes(prefixes []netip.Prefix) TrustList {
	return TrustList{prefixes: slices.Clone(prefixes)}
}

// Contains reports whether addr is in the set. An IPv4 address mapped to IPv6 counts as IPv4.
func (t TrustList) Contains(addr netip.Addr) bool {
	if t.all {
		return true
	}
	addr = addr.Unmap()
	for _, p := range t.prefixes {
		if p.Contains(addr) {
			return true
		}
	}
	return false
}
