// Package endpoint distinguishes addresses of hosts from those that stand for something else.
//
// It is pure: functions of an address.
package endpoint

import (
	"net/netip"

	"weft/internal/peer"
)

// RelayPrefix contains the relayed endpoints: synthetic addresses, each of which stands for a peer that is reached
// through a relay. So code that sends to endpoints and learns them needs no special case. It is the prefix that is
// discarded everywhere (RFC 6666); the ID of the peer is in the lower half of the address.
// See docs/adr/0014-relayed-endpoints.md.
var RelayPrefix = netip.MustParsePrefix("100::/64")

// Relayed returns the address that stands for a peer behind relays.
func Relayed(id peer.ID) netip.AddrPort {
	addr := RelayPrefix.Addr().As16()
	copy(addr[8:], id[:])
	return netip.AddrPortFrom(netip.AddrFrom16(addr), 1)
}

// IsRelayed reports whether addr is a relayed endpoint.
func IsRelayed(addr netip.AddrPort) bool {
	return addr.Addr().Is6() && RelayPrefix.Contains(addr.Addr())
}

// Peer returns the peer for which a relayed endpoint stands.
func Peer(addr netip.AddrPort) peer.ID {
	text := addr.Addr().As16()
	return peer.ID(text[8:])
}

// broadcast is the address of all hosts of a link.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// Usable reports whether a peer can be at an address that it announces: that of one host, and neither of this one nor of no
// host at all. An IPv6 link-local address needs a zone, which other nodes do not know. addr is not IPv4 mapped to IPv6.
func Usable(addr netip.AddrPort) bool {
	ip := addr.Addr()
	return addr.IsValid() && addr.Port() != 0 && !IsRelayed(addr) && !ip.IsUnspecified() && !ip.IsLoopback() &&
		!ip.IsMulticast() && ip != broadcast && (ip.Is4() || !ip.IsLinkLocalUnicast())
}

// Public reports whether a relay can see a peer at an address, as far as the address shows that: it is usable, and
// not one of a link (RFC 3927), of "this network" (RFC 1122) or reserved (RFC 1112).
func Public(addr netip.AddrPort) bool {
	if !Usable(addr) || addr.Addr().IsLinkLocalUnicast() {
		return false
	}
	if ip := addr.Addr(); ip.Is4() {
		return ip.As4()[0] != 0 && ip.As4()[0] < 240
	}
	return true
}
