// Package ecn carries the ECN field and the DSCP between the IP header of a frame and the outer IP header around its
// datagram: ECN in both directions (RFC 6040), DSCP only outwards (RFC 2983, section 3.1).
//
// Both fields are one byte, the TOS of IPv4 and the traffic class of IPv6:
//
//	  7   6   5   4   3   2   1   0
//	+-----------------------+-------+
//	|         DSCP          |  ECN  |     RFC 2474, RFC 3168
//	+-----------------------+-------+
//
// It is pure: it never reads beyond a frame, never allocates and never panics, whatever the bytes are.
package ecn

import (
	"encoding/binary"

	"weft/internal/ether"
	"weft/internal/packet"
)

// The ECN field (RFC 3168, section 5; RFC 8311 for ECT1).
const (
	NotECT = 0b00 // the transport does not support ECN
	ECT1   = 0b01 // ECN-capable transport, low latency (RFC 9331)
	ECT0   = 0b10 // ECN-capable transport
	CE     = 0b11 // congestion experienced
	Mask   = 0b11
)

// maxTags is the most VLAN tags before the IP header, as in package virtio.
const maxTags = 2

// drop, in combined, stands for a frame that must be dropped.
const drop = 0xff

// combined is the ECN field that a frame leaves with, by its own field and that of the outer header (RFC 6040, figure 4).
var combined = [4][4]uint8{
	NotECT: {NotECT: NotECT, ECT0: NotECT, ECT1: NotECT, CE: drop},
	ECT0:   {NotECT: ECT0, ECT0: ECT0, ECT1: ECT1, CE: CE},
	ECT1:   {NotECT: ECT1, ECT0: ECT1, ECT1: ECT1, CE: CE},
	CE:     {NotECT: CE, ECT0: CE, ECT1: CE, CE: CE},
}

// TOS returns the DSCP and ECN of the IP packet in an Ethernet frame, or 0 for a frame with another content. It is the TOS of
// the outer header: RFC 6040, section 4.1, "normal mode", copies the ECN field, CE included.
func TOS(frame []byte) uint8 {
	at, ipv6, ok := header(frame)
	switch {
	case !ok:
		return 0
	case ipv6:
		return class(frame[at:])
	default:
		return frame[at+packet.IPv4TOS]
	}
}

// OuterMask returns the bits of TOS that an outer header gets: ECN always, DSCP if it is to be copied.
func OuterMask(copyDSCP bool) uint8 {
	if copyDSCP {
		return 0xff
	}
	return Mask
}

// Changes reports whether Decapsulate may change or refuse a frame behind an outer header with the given TOS: only ECT1 and CE
// have an effect.
func Changes(outer uint8) bool { return outer&ECT1 != 0 }

// Decapsulate sets the ECN field of the IP packet in an Ethernet frame to what follows from it and from the TOS of the
// outer header (RFC 6040, section 4.2), and updates the checksum of an IPv4 header. Frames with another content stay unchanged.
// It returns false if the frame must be dropped: the underlay reports congestion by a mark that the packet's transport
// would not see, and the loss is what it does see.
func Decapsulate(frame []byte, outer uint8) bool {
	at, ipv6, ok := header(frame)
	if !ok {
		return true
	}
	ip := frame[at:]
	inner := ip[packet.IPv4TOS] & Mask
	if ipv6 {
		inner = class(ip) & Mask
	}
	switch field := combined[inner][outer&Mask]; {
	case field == drop:
		return false
	case field == inner:
	case ipv6:
		ip[1] = ip[1]&^(Mask<<4) | field<<4
	default:
		setIPv4(ip, field)
	}
	return true
}

// header returns the offset of the IP header of a frame, which is complete without its options.
func header(frame []byte) (at int, ipv6, ok bool) {
	at, etherType, ok := packet.Ethernet(frame, maxTags)
	switch {
	case !ok:
		return 0, false, false
	case etherType == ether.TypeIPv4:
		return at, false, len(frame) >= at+packet.IPv4MinLen && frame[at]>>4 == 4
	case etherType == ether.TypeIPv6:
		return at, true, len(frame) >= at+packet.IPv6Len && frame[at]>>4 == 6
	default:
		return 0, false, false
	}
}

// class returns the traffic class of the IPv6 header ip: bits 4 to 11 (RFC 8200, section 3).
func class(ip []byte) uint8 { return uint8(binary.BigEndian.Uint16(ip) >> 4) }

// setIPv4 sets the ECN field of the IPv4 header ip, and updates its checksum by the difference (RFC 1624, equation 3): a
// wrong checksum stays wrong.
func setIPv4(ip []byte, field uint8) {
	before := binary.BigEndian.Uint16(ip)
	ip[packet.IPv4TOS] = ip[packet.IPv4TOS]&^Mask | field
	sum := uint32(^binary.BigEndian.Uint16(ip[packet.IPv4Checksum:])) + uint32(^before) + uint32(binary.BigEndian.Uint16(ip))
	sum = sum>>16 + sum&0xffff
	sum = sum>>16 + sum&0xffff
	binary.BigEndian.PutUint16(ip[packet.IPv4Checksum:], ^uint16(sum))
}
