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

// Numbers of protocols (IEEE 802, IANA).
const (
	kindIPv4, kindIPv6, kindARP             = 0x0800, 0x86dd, 0x0806
	kindVLAN, kindServiceVLAN               = 0x8100, 0x88a8
	protoICMP, protoTCP, protoUDP           = 1, 6, 17
	protoICMP6, protoSCTP                   = 58, 132
	optHop, optRouting, optFragment, optEnd = 0, 43, 44, 60
)

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
	v.kind = binary.BigEndian.Uint16(frame[12:])
	rest := frame[ether.HeaderLen:]
	for v.kind == kindVLAN || v.kind == kindServiceVLAN {
		if len(rest) < 4 {
			return
		}
		if v.vlan < 0 {
			v.vlan = int(binary.BigEndian.Uint16(rest) & 0x0fff)
		}
		v.kind, rest = binary.BigEndian.Uint16(rest[2:]), rest[4:]
	}
	switch {
	case v.kind == kindIPv4 && len(rest) >= 20:
		v.readIPv4(rest)
	case v.kind == kindIPv6 && len(rest) >= 40:
		v.readIPv6(rest)
	case v.kind == kindARP && len(rest) >= 28:
		v.src, v.dst = netip.AddrFrom4([4]byte(rest[14:18])), netip.AddrFrom4([4]byte(rest[24:28]))
	}
}

func (v *view) readIPv4(b []byte) {
	v.src, v.dst, v.proto = netip.AddrFrom4([4]byte(b[12:16])), netip.AddrFrom4([4]byte(b[16:20])), int(b[9])
	header := int(b[0]&0x0f) * 4
	if first := binary.BigEndian.Uint16(b[6:])&0x1fff == 0; first && header >= 20 && len(b) >= header {
		v.readPorts(b[header:])
	}
}

func (v *view) readIPv6(b []byte) {
	v.src, v.dst = netip.AddrFrom16([16]byte(b[8:24])), netip.AddrFrom16([16]byte(b[24:40]))
	next, rest, first := b[6], b[40:], true
	for next == optHop || next == optRouting || next == optEnd || next == optFragment {
		if len(rest) < 8 {
			return
		}
		length := (int(rest[1]) + 1) * 8
		if next == optFragment {
			length, first = 8, binary.BigEndian.Uint16(rest[2:])&0xfff8 == 0
		}
		if len(rest) < length {
			return
		}
		next, rest = rest[0], rest[length:]
	}
	v.proto = int(next)
	if first {
		v.readPorts(rest)
	}
}

func (v *view) readPorts(b []byte) {
	if has := v.proto == protoTCP || v.proto == protoUDP || v.proto == protoSCTP; has && len(b) >= 4 {
		v.ports, v.from, v.to = true, binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
}
