package toobig

import (
	"net/netip"

	"weft/internal/ether"
	"weft/internal/packet"
)

// mayReply reports whether an ICMP error about the packet is allowed (RFC 1122, section 3.2.2; RFC 1812, section
// 4.3.2.7; RFC 4443, section 2.4 e) and useful.
func (p *ipFrame) mayReply(mtu int) bool {
	if ether.Destination(p.link).IsMulticast() || ether.Source(p.link).IsMulticast() || ether.Source(p.link).IsZero() {
		return false
	}
	if src, dst := p.addresses(); !isHost(src) || !isHost(dst) {
		return false
	}
	if p.version == 4 {
		return p.fragmentField()&packet.IPv4OffsetMask == 0 && !p.isErrorIPv4()
	}
	// Hosts ignore an MTU below 1,280 bytes (RFC 8201, section 4), so an error would be useless.
	return (p.room(mtu) >= minIPv6 || len(p.ip) > minIPv6) && !p.isErrorIPv6()
}

// isHost reports whether a may be the address of a single host.
func isHost(a netip.Addr) bool {
	if a.Is4() && a.As4()[0] >= 240 {
		return false // class E, and 255.255.255.255
	}
	return !a.IsUnspecified() && !a.IsMulticast() && !a.IsLoopback()
}

// isErrorIPv4 reports whether the packet is an ICMP error, or too short to know.
func (p *ipFrame) isErrorIPv4() bool {
	if packet.Protocol(p.ip[packet.IPv4Protocol]) != packet.ICMP {
		return false
	}
	if len(p.ip) <= p.header {
		return true
	}
	switch p.ip[p.header] {
	case 3, 4, 5, 11, 12: // unreachable, source quench, redirect, time exceeded, parameter problem
		return true
	default:
		return false
	}
}

// isErrorIPv6 reports whether no reply may be sent because of the transport header: the packet is an ICMPv6 error or
// redirect or a fragment other than the first, or too little of its headers is there to know.
func (p *ipFrame) isErrorIPv6() bool {
	proto, at, result := packet.Transport(p.ip, packet.AllExtensions)
	if result != packet.Found {
		return true
	}
	if proto != packet.ICMPv6 {
		return false
	}
	return at == len(p.ip) || p.ip[at] < 128 || p.ip[at] == 137
}
