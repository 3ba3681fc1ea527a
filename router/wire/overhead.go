package wire

import (
	"weft/internal/ether"
	"weft/internal/packet"
)

// Bytes added to a frame on the underlay.
const (
	// Headroom is the length of the parts before the frame in a datagram.
	Headroom = HeaderLen + MetaLen
	// TagLen is the length of the tag of AES-256-GCM and of ChaCha20-Poly1305, behind the frame of a sealed datagram.
	TagLen = 16

	udpLen = 8
)

// OverheadPlain is the difference in bytes between the MTU of an IPv4 underlay and that of the overlay, plain: outer IP
// and UDP, header, metadata, and the inner Ethernet header, which an MTU does not include.
const OverheadPlain = packet.IPv4MinLen + udpLen + Headroom + ether.HeaderLen

// OverheadSealed is OverheadPlain plus the tag.
const OverheadSealed = OverheadPlain + TagLen

// OverheadIPv6 is the additional overhead of an IPv6 underlay.
const OverheadIPv6 = packet.IPv6Len - packet.IPv4MinLen

// OuterLen returns the bytes of the IP and UDP headers around a datagram.
func OuterLen(ipv6 bool) int {
	if ipv6 {
		return packet.IPv6Len + udpLen
	}
	return packet.IPv4MinLen + udpLen
}

// MTU returns the overlay's MTU in bytes over an underlay with the given MTU, so that no datagram is fragmented: over
// IPv4 with 1,500 it is 1,438 plain and 1,422 sealed; over IPv6 it is 20 less. It is never below 0.
func MTU(underlay int, sealed, ipv6 bool) int {
	overhead := OverheadPlain
	if sealed {
		overhead = OverheadSealed
	}
	if ipv6 {
		overhead += OverheadIPv6
	}
	return max(underlay-overhead, 0)
}
