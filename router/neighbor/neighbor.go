// Package neighbor reads and writes the frames with which hosts resolve hardware addresses: ARP (RFC 826, RFC 5227) and
// neighbor discovery (RFC 4861). It is pure: no I/O, no allocation in Parse.
package neighbor

import (
	"encoding/binary"
	"net/netip"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Kind is the kind of a message. The zero Kind is invalid.
type Kind uint8

// Kinds of message.
const (
	Request  Kind = iota + 1 // Sender asks for the hardware address of Target
	Probe                    // the sender checks whether Target is free, before it uses the address
	Announce                 // Sender is at MAC; sent to all hosts
	Reply                    // Sender is at MAC; sent to one host
)

// Message is the content of one frame.
type Message struct {
	Kind Kind
	// Target is the address to resolve; in an announcement and a reply, the address of the sender.
	Target netip.Addr
	// Sender and MAC are the addresses of the sender; Sender is not valid in a Probe.
	Sender netip.Addr
	MAC    ether.Addr
}

// Lengths in bytes and values on the wire.
const (
	arpLen     = 28
	arpRequest = 1
	arpReply   = 2

	solicitLen   = 24 // without options
	typeSolicit  = 135
	typeAdvert   = 136
	optionSource = 1
	optionTarget = 2

	flagSolicited = 0x40
	flagOverride  = 0x20
)

// MayBe reports whether frame, which must have an Ethernet header, may hold a message. It is cheap, as nearly all
// frames hold none.
func MayBe(frame []byte) bool {
	switch ether.Type(frame) {
	case ether.TypeARP:
		return true
	case ether.TypeIPv6:
		return isDiscovery(frame)
	}
	return false
}

// isDiscovery reports whether an IPv6 frame holds a solicitation or an advertisement.
func isDiscovery(frame []byte) bool {
	const at = ether.HeaderLen + packet.IPv6Len
	if len(frame) < at+solicitLen || packet.Protocol(frame[ether.HeaderLen+packet.IPv6Next]) != packet.ICMPv6 {
		return false
	}
	return frame[at] == typeSolicit || frame[at] == typeAdvert
}

// Parse reads the message in a frame; ok is false if there is none, or if it is malformed.
func Parse(frame []byte) (m Message, ok bool) {
	if len(frame) < ether.HeaderLen {
		return m, false
	}
	switch ether.Type(frame) {
	case ether.TypeARP:
		return parseARP(frame)
	case ether.TypeIPv6:
		if isDiscovery(frame) {
			return parseDiscovery(frame)
		}
	}
	return m, false
}

func parseARP(frame []byte) (m Message, ok bool) {
	b := frame[ether.HeaderLen:]
	if len(b) < arpLen || binary.BigEndian.Uint32(b) != 0x00010800 || b[4] != 6 || b[5] != 4 {
		return m, false
	}
	m.MAC = ether.Addr(b[8:14])
	sender, target := netip.AddrFrom4([4]byte(b[14:18])), netip.AddrFrom4([4]byte(b[24:28]))
	if m.MAC.IsMulticast() || m.MAC != ether.Source(frame) || target.IsUnspecified() {
		return m, false
	}
	m.Sender, m.Target = sender, target
	switch op := binary.BigEndian.Uint16(b[6:]); {
	case op != arpRequest && op != arpReply:
		return m, false
	case sender.IsUnspecified():
		m.Kind, m.Sender = Probe, netip.Addr{}
		return m, op == arpRequest
	case sender == target || op == arpReply && ether.Destination(frame).IsMulticast():
		m.Kind, m.Target = Announce, sender
	case op == arpRequest:
		m.Kind = Request
	default:
		m.Kind, m.Target = Reply, sender
	}
	return m, true
}

func parseDiscovery(frame []byte) (m Message, ok bool) {
	ip := frame[ether.HeaderLen:]
	icmp := ip[packet.IPv6Len:]
	n := int(binary.BigEndian.Uint16(ip[packet.IPv6Length:]))
	if n < solicitLen || n > len(icmp) || ip[0]>>4 != 6 || ip[packet.IPv6HopLimit] != 255 || icmp[1] != 0 {
		return m, false // a packet with a hop limit below 255 has come from another link
	}
	icmp = icmp[:n]
	source, target := netip.AddrFrom16([16]byte(ip[packet.IPv6Source:])), netip.AddrFrom16([16]byte(icmp[8:24]))
	if target.IsMulticast() || target.IsUnspecified() {
		return m, false
	}
	m.Target = target
	if icmp[0] == typeSolicit {
		if source.IsUnspecified() {
			m.Kind = Probe
			return m, true
		}
		m.Kind, m.Sender = Request, source
		m.MAC, ok = option(icmp[solicitLen:], optionSource)
		return m, ok && m.MAC == ether.Source(frame)
	}
	m.Sender, m.Kind = target, Reply
	if icmp[4]&flagSolicited == 0 {
		m.Kind = Announce
	}
	if m.MAC, ok = option(icmp[solicitLen:], optionTarget); !ok {
		m.MAC = ether.Source(frame)
	}
	return m, !m.MAC.IsMulticast() && m.MAC == ether.Source(frame)
}

// option returns the hardware address in the option of the given kind.
func option(b []byte, kind byte) (ether.Addr, bool) {
	for len(b) >= 8 {
		n := 8 * int(b[1])
		if n == 0 || n > len(b) {
			return ether.Addr{}, false
		}
		if b[0] == kind && n == 8 {
			return ether.Addr(b[2:8]), true
		}
		b = b[n:]
	}
	return ether.Addr{}, false
}

// Answer returns the reply to the Request m: a frame from m.Target at the hardware address mac.
func Answer(m Message, mac ether.Addr) []byte {
	if m.Target.Is4() {
		return answerARP(m, mac)
	}
	return answerDiscovery(m, mac)
}

func answerARP(m Message, mac ether.Addr) []byte {
	b := make([]byte, ether.HeaderLen+arpLen)
	putEthernet(b, m.MAC, mac, ether.TypeARP)
	a := b[ether.HeaderLen:]
	binary.BigEndian.PutUint32(a, 0x00010800)
	a[4], a[5], a[7] = 6, 4, arpReply
	copy(a[8:], mac[:])
	target, sender := m.Target.As4(), m.Sender.As4()
	copy(a[14:], target[:])
	copy(a[18:], m.MAC[:])
	copy(a[24:], sender[:])
	return b
}

func answerDiscovery(m Message, mac ether.Addr) []byte {
	const icmpLen = solicitLen + 8
	b := make([]byte, ether.HeaderLen+packet.IPv6Len+icmpLen)
	putEthernet(b, m.MAC, mac, ether.TypeIPv6)
	ip := b[ether.HeaderLen:]
	ip[0], ip[packet.IPv6Length+1], ip[packet.IPv6Next], ip[packet.IPv6HopLimit] = 6<<4, icmpLen, uint8(packet.ICMPv6), 255
	target, sender := m.Target.As16(), m.Sender.As16()
	copy(ip[packet.IPv6Source:], target[:])
	copy(ip[packet.IPv6Destination:], sender[:])
	icmp := ip[packet.IPv6Len:]
	icmp[0], icmp[4] = typeAdvert, flagSolicited|flagOverride
	copy(icmp[8:], target[:])
	icmp[solicitLen], icmp[solicitLen+1] = optionTarget, 1
	copy(icmp[solicitLen+2:], mac[:])
	binary.BigEndian.PutUint16(icmp[2:], checksum(ip[packet.IPv6Source:packet.IPv6Len], icmp))
	return b
}

func putEthernet(b []byte, dst, src ether.Addr, kind uint16) {
	copy(b, dst[:])
	copy(b[6:], src[:])
	binary.BigEndian.PutUint16(b[12:], kind)
}

// checksum returns the checksum of an ICMPv6 message between two addresses (RFC 8200, section 8.1).
func checksum(addrs, icmp []byte) uint16 {
	sum := uint32(len(icmp)) + uint32(packet.ICMPv6)
	for _, part := range [][]byte{addrs, icmp} {
		for ; len(part) > 1; part = part[2:] {
			sum += uint32(binary.BigEndian.Uint16(part))
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
