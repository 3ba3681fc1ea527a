// Package filter chooses frames by expressions in the language of tcpdump (pcap-filter(7)), as far as people use it by hand:
//
//	[PROTO] [src|dst] host ADDR | net CIDR | port N | portrange N-M        PROTO: arp, ip, ip6, icmp, icmp6, tcp, udp, sctp
//	ether [src|dst] host MAC    | ether proto N
//	broadcast | multicast | vlan [N] | less N | greater N | PROTO
//
// joined by "and", "or", "not" and parentheses; "and" may be left out, and so may "host" and "net" before an address, and all that stands
// before the address or port where the last one had the same: "tcp dst port 80 or 443". "not" binds closest; "and" and "or" are taken from left
// to right, neither before the other. A frame of ARP has the addresses that it asks for and from.
//
// libpcap would need cgo, and what there is in Go alone cannot do all of this (docs/adr/0022-captures.md).
package filter

import (
	"encoding/binary"
	"net/netip"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Filter chooses frames. The zero Filter and a nil one choose all. It may be used by any goroutine.
type Filter struct {
	matches predicate
}

// predicate is an expression, or a part of one.
type predicate func(view) bool

// Match reports whether a frame of the given length is chosen, of which frame is the beginning, all headers at least. It neither keeps nor
// changes it, and allocates nothing.
func (f *Filter) Match(frame []byte, length int) bool {
	if f == nil || f.matches == nil {
		return true
	}
	var v view
	v.read(frame)
	v.length = length
	return f.matches(v)
}

// maxTags is the most VLAN tags that the filter walks over.
const maxTags = 8

// view is what a filter may ask of a frame. What the frame is too short for is left out.
type view struct {
	frame    []byte
	length   int    // of all of it
	kind     uint16 // the EtherType behind all tags
	vlan     int    // of the outer tag; -1 for none
	src, dst netip.Addr
	proto    int // above IP; -1 for none
	ports    bool
	from, to uint16
}

func (v *view) read(frame []byte) {
	*v = view{frame: frame, vlan: -1, proto: -1}
	if len(frame) < ether.HeaderLen {
		return
	}
	l3, kind, whole := packet.Ethernet(frame, maxTags)
	v.kind = kind
	if id, ok := packet.VLAN(frame); ok {
		v.vlan = int(id)
	}
	if !whole {
		return
	}
	rest := frame[l3:]
	switch {
	case v.kind == ether.TypeIPv4 && len(rest) >= packet.IPv4MinLen:
		v.readIPv4(rest)
	case v.kind == ether.TypeIPv6 && len(rest) >= packet.IPv6Len:
		v.readIPv6(rest)
	case v.kind == ether.TypeARP && len(rest) >= 28:
		v.src, v.dst = netip.AddrFrom4([4]byte(rest[14:18])), netip.AddrFrom4([4]byte(rest[24:28]))
	}
}

func (v *view) readIPv4(ip []byte) {
	v.src, v.dst = netip.AddrFrom4([4]byte(ip[packet.IPv4Source:])), netip.AddrFrom4([4]byte(ip[packet.IPv4Destination:]))
	v.proto = int(ip[packet.IPv4Protocol])
	header := packet.IPv4HeaderLen(ip)
	first := binary.BigEndian.Uint16(ip[packet.IPv4Fragment:])&packet.IPv4OffsetMask == 0
	if first && header >= packet.IPv4MinLen && len(ip) >= header {
		v.readPorts(ip[header:])
	}
}

// readIPv6 reads the transport header behind all extension headers. A later fragment has the protocol of its packet, but no ports.
func (v *view) readIPv6(ip []byte) {
	v.src, v.dst = netip.AddrFrom16([16]byte(ip[packet.IPv6Source:])), netip.AddrFrom16([16]byte(ip[packet.IPv6Destination:]))
	proto, l4, result := packet.Transport(ip, packet.AllExtensions)
	if result != packet.Found && result != packet.LaterFragment {
		return
	}
	v.proto = int(proto)
	if result == packet.Found {
		v.readPorts(ip[l4:])
	}
}

func (v *view) readPorts(b []byte) {
	switch packet.Protocol(v.proto) {
	case packet.TCP, packet.UDP, packet.SCTP:
		if len(b) >= 4 {
			v.ports, v.from, v.to = true, binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
		}
	}
}
