// Package filter matches frames against expressions in the language of tcpdump (pcap-filter(7)), as far as people use it by
// hand:
//
//	[PROTO] [src|dst] host ADDR | net CIDR | port N | portrange N-M        PROTO: arp, ip, ip6, icmp, icmp6, tcp, udp, sctp
//	ether [src|dst] host MAC    | ether proto N
//	broadcast | multicast | vlan [N] | less N | greater N | PROTO
//
// Conditions are joined by "and", "or", "not" and parentheses. "not" binds closest; "and" and "or" have the same precedence
// and are evaluated from left to right. Three words may be omitted: "and", "host" and "net" before an address, and the
// qualifiers before an address or port that has the same ones as the condition before it: "tcp dst port 80 or 443". An ARP
// frame has its sender's and target's protocol addresses as source and destination.
//
// The filter sees through VLAN tags and IPv6 extension headers, which tcpdump does not; the test against tcpdump lists all
// differences. libpcap would need cgo, and no library in pure Go supports all of this (docs/adr/0022-captures.md).
package filter

import (
	"encoding/binary"
	"net/netip"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Filter matches frames. The zero Filter and a nil one match all. A Filter is constant, so any goroutine may use it.
type Filter struct {
	matches predicate
}

// predicate is an expression, or a part of one.
type predicate func(fields) bool

// Match reports whether a frame matches. frame is the beginning of the frame, with all headers at least, and length is the
// length in bytes of the whole frame. Match neither keeps nor changes frame, and allocates nothing.
func (f *Filter) Match(frame []byte, length int) bool {
	if f == nil || f.matches == nil {
		return true
	}
	v := parseFrame(frame)
	v.length = length
	return f.matches(v)
}

// maxTags is how many VLAN tags the filter sees through.
const maxTags = 8

// Offsets in an ARP packet for Ethernet and IPv4, and its length (RFC 826).
const (
	arpSender = 14
	arpTarget = 24
	arpLen    = 28
)

// portsLen is the length of the ports at the beginning of a header of TCP, UDP or SCTP.
const portsLen = 4

// fields are the fields of a frame that conditions can test. Fields that are not in the frame, because it is too short for
// them or of another protocol, match no condition.
type fields struct {
	frame     []byte
	length    int    // of the whole frame
	etherType uint16 // after all tags
	vlan      int    // of the outermost tag; -1: no tag
	src, dst  netip.Addr
	proto     int // of the IP payload; -1: none
	ports     bool
	from, to  uint16 // valid with ports
}

// parseFrame returns the fields of a frame. length is not set.
func parseFrame(frame []byte) (v fields) {
	v = fields{frame: frame, vlan: -1, proto: -1}
	if len(frame) < ether.HeaderLen {
		return v
	}
	l3, etherType, complete := packet.Ethernet(frame, maxTags)
	v.etherType = etherType
	if id, ok := packet.VLAN(frame); ok {
		v.vlan = int(id)
	}
	if !complete {
		return v
	}
	payload := frame[l3:]
	switch {
	case v.etherType == ether.TypeIPv4 && len(payload) >= packet.IPv4MinLen:
		v.parseIPv4(payload)
	case v.etherType == ether.TypeIPv6 && len(payload) >= packet.IPv6Len:
		v.parseIPv6(payload)
	case v.etherType == ether.TypeARP && len(payload) >= arpLen:
		v.src = netip.AddrFrom4([4]byte(payload[arpSender:]))
		v.dst = netip.AddrFrom4([4]byte(payload[arpTarget:]))
	}
	return v
}

func (v *fields) parseIPv4(ip []byte) {
	v.src, v.dst = netip.AddrFrom4([4]byte(ip[packet.IPv4Source:])), netip.AddrFrom4([4]byte(ip[packet.IPv4Destination:]))
	v.proto = int(ip[packet.IPv4Protocol])
	header := packet.IPv4HeaderLen(ip)
	first := binary.BigEndian.Uint16(ip[packet.IPv4Fragment:])&packet.IPv4OffsetMask == 0
	if first && header >= packet.IPv4MinLen && len(ip) >= header {
		v.parsePorts(ip[header:])
	}
}

// parseIPv6 parses the transport header after all extension headers. A fragment other than the first has the protocol of
// its packet, but no ports.
func (v *fields) parseIPv6(ip []byte) {
	v.src, v.dst = netip.AddrFrom16([16]byte(ip[packet.IPv6Source:])), netip.AddrFrom16([16]byte(ip[packet.IPv6Destination:]))
	proto, l4, result := packet.Transport(ip, packet.AllExtensions)
	if result != packet.Found && result != packet.LaterFragment {
		return
	}
	v.proto = int(proto)
	if result == packet.Found {
		v.parsePorts(ip[l4:])
	}
}

func (v *fields) parsePorts(b []byte) {
	p := packet.Protocol(v.proto)
	if (p == packet.TCP || p == packet.UDP || p == packet.SCTP) && len(b) >= portsLen {
		v.ports, v.from, v.to = true, binary.BigEndian.Uint16(b), binary.BigEndian.Uint16(b[2:])
	}
}
