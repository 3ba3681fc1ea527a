// Package flowhash distributes flows: over source ports, over queues.
//
// A flow is a pair of addresses, with a pair of ports in TCP, UDP and SCTP. Fragments of IPv4 and other packets have no ports, frames
// without IP only their Ethernet addresses. Both directions of a flow are one.
package flowhash

import (
	"encoding/binary"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Flow identifies the flow of a frame. It is the same for all its frames and on all hosts.
type Flow uint64

// Of returns the flow of a frame, which must hold the header of Ethernet.
func Of(frame []byte) Flow {
	addresses, ports := flow(frame)
	return Flow(addresses + mix(ports))
}

// Hash returns a number of which each bit depends on many bits of the flow.
func (f Flow) Hash() uint64 { return mix(uint64(f)) }

// Index returns a number below n. Numbers with different salts do not depend on each other.
func (f Flow) Index(n int, salt uint64) int {
	return int(mix(uint64(f)+salt) >> 32 * uint64(n) >> 32)
}

// mix returns a number of which each bit depends on many bits of x.
func mix(x uint64) uint64 {
	const m1, m2 = 0x9e3779b97f4a7c15, 0xd6e8feb86659fd93 // odd, with many bits set
	x *= m1
	x ^= x >> 32
	return x * m2
}

// flow returns sums over both ends of a flow, mixed before, as many pairs of addresses have the same plain sum.
func flow(frame []byte) (addresses, ports uint64) {
	rest := frame[ether.HeaderLen:]
	switch t := ether.Type(frame); {
	case t == ether.TypeIPv4 && len(rest) >= packet.IPv4MinLen:
		addresses = mix(word(rest, packet.IPv4Source)) + mix(word(rest, packet.IPv4Source+4))
		const fragment = ^uint16(packet.IPv4DontFragment | 0x8000) // more fragments, or an offset
		if header := int(rest[0]&0x0f) * 4; binary.BigEndian.Uint16(rest[packet.IPv4Fragment:])&fragment == 0 {
			ports = portsOf(rest, header, rest[packet.IPv4Protocol])
		}
	case t == ether.TypeIPv6 && len(rest) >= packet.IPv6Len:
		addresses = mixAddress(rest[packet.IPv6Source:]) + mixAddress(rest[packet.IPv6Source+16:])
		ports = portsOf(rest, packet.IPv6Len, rest[packet.IPv6Next])
	default:
		addresses = mix(ether.Source(frame).Uint64()) + mix(ether.Destination(frame).Uint64())
	}
	return addresses, ports
}

// portsOf returns the sum of the ports of a packet, and 0 if it has none.
func portsOf(p []byte, header int, protocol uint8) uint64 {
	const tcp, udp, sctp = 6, 17, 132
	if protocol != tcp && protocol != udp && protocol != sctp || len(p) < header+4 {
		return 0
	}
	return mix(uint64(binary.BigEndian.Uint16(p[header:]))) + mix(uint64(binary.BigEndian.Uint16(p[header+2:]))) + uint64(protocol)
}

// mixAddress returns mix of the IPv6 address at the start of b.
func mixAddress(b []byte) uint64 {
	return mix(binary.BigEndian.Uint64(b) + mix(binary.BigEndian.Uint64(b[8:])))
}

func word(b []byte, at int) uint64 { return uint64(binary.BigEndian.Uint32(b[at:])) }
