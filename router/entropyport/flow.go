package entropyport

import (
	"encoding/binary"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Index returns the number, below n, of the entropy port from which a frame leaves. All frames of a flow have one, in both directions and
// on all nodes with the same n: so the frames of a flow and their answers pass the queue with that number at both ends, and the kernel,
// which reads a flow from the queue of the TAP to which its answers were written last, leaves it there.
//
// A flow is a pair of addresses, with a pair of ports in TCP, UDP and SCTP. Fragments of IPv4 and other packets have no ports, frames
// without IP only their Ethernet addresses. frame must hold the header of Ethernet.
func Index(frame []byte, n int) int {
	addresses, ports := flow(frame)
	const m1, m2 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93 // odd, with many bits set
	h := (addresses + ports*m1) * m2
	h ^= h >> 32
	h *= m1
	return int(h >> 32 * uint64(n) >> 32)
}

// flow returns sums over both ends of a flow.
func flow(frame []byte) (addresses, ports uint64) {
	rest := frame[ether.HeaderLen:]
	switch t := ether.Type(frame); {
	case t == ether.TypeIPv4 && len(rest) >= packet.IPv4MinLen:
		addresses = word(rest, packet.IPv4Source) + word(rest, packet.IPv4Source+4)
		const fragment = ^uint16(packet.IPv4DontFragment | 0x8000) // more fragments, or an offset
		if header := int(rest[0]&0x0f) * 4; binary.BigEndian.Uint16(rest[packet.IPv4Fragment:])&fragment == 0 {
			ports = portsOf(rest, header, rest[packet.IPv4Protocol])
		}
	case t == ether.TypeIPv6 && len(rest) >= packet.IPv6Len:
		for i := packet.IPv6Source; i < packet.IPv6Len; i += 4 {
			addresses += word(rest, i) * uint64(i%16/4*2+1) // the same factor for both addresses
		}
		ports = portsOf(rest, packet.IPv6Len, rest[packet.IPv6Next])
	default:
		addresses = ether.Source(frame).Uint64() + ether.Destination(frame).Uint64()
	}
	return addresses, ports
}

// portsOf returns the sum of the ports of a packet, and 0 if it has none.
func portsOf(p []byte, header int, protocol uint8) uint64 {
	const tcp, udp, sctp = 6, 17, 132
	if protocol != tcp && protocol != udp && protocol != sctp || len(p) < header+4 {
		return 0
	}
	return uint64(binary.BigEndian.Uint16(p[header:])) + uint64(binary.BigEndian.Uint16(p[header+2:])) + uint64(protocol)<<17
}

func word(b []byte, at int) uint64 { return uint64(binary.BigEndian.Uint32(b[at:])) }
