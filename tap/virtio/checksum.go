package virtio

import (
	"encoding/binary"
	"math/bits"

	"weft/internal/packet"
)

// sum returns the ones'-complement sum of b in 16 bits, with b padded to an even length (RFC 1071). The result is not
// complemented: the sum of a packet with a correct checksum is 0xffff.
//
// It adds words of eight bytes in the byte order of the memory, as both byte orders give the same sum except for the
// order of its own two bytes (RFC 1071, section 2).
func sum(b []byte) uint16 {
	var total, carry uint64
	for len(b) >= 64 {
		total, carry = bits.Add64(total, binary.LittleEndian.Uint64(b), 0)
		total, carry = bits.Add64(total, binary.LittleEndian.Uint64(b[8:]), carry)
		total, carry = bits.Add64(total, binary.LittleEndian.Uint64(b[16:]), carry)
		total, carry = bits.Add64(total, binary.LittleEndian.Uint64(b[24:]), carry)
		total, carry = bits.Add64(total, binary.LittleEndian.Uint64(b[32:]), carry)
		total, carry = bits.Add64(total, binary.LittleEndian.Uint64(b[40:]), carry)
		total, carry = bits.Add64(total, binary.LittleEndian.Uint64(b[48:]), carry)
		total, carry = bits.Add64(total, binary.LittleEndian.Uint64(b[56:]), carry)
		total += carry
		b = b[64:]
	}
	for len(b) >= 8 {
		total, carry = bits.Add64(total, binary.LittleEndian.Uint64(b), 0)
		total += carry
		b = b[8:]
	}
	var rest uint64
	for i, v := range b {
		rest |= uint64(v) << (8 * i)
	}
	total, carry = bits.Add64(total, rest, 0)
	return bits.ReverseBytes16(fold(total + carry))
}

// fold adds up the four 16-bit words of v. The result is 0 only if v is 0.
func fold(v uint64) uint16 {
	v = v>>32 + v&0xffffffff
	v = v>>32 + v&0xffffffff
	v = v>>16 + v&0xffff
	v = v>>16 + v&0xffff
	return uint16(v)
}

// pseudo returns the sum of the pseudo-header (RFC 793, section 3.1; RFC 8200, section 8.1) of frame with payload bytes
// behind its headers. It uses the addresses in the IP header, which is correct unless a routing header has another
// destination.
func (l *Layout) pseudo(frame []byte, payload int) uint16 {
	addresses := frame[l.L3+packet.IPv4Source : l.L3+packet.IPv4Source+8]
	if l.ipv6 {
		addresses = frame[l.L3+packet.IPv6Source : l.L3+packet.IPv6Source+32]
	}
	protocol := packet.UDP
	if l.tcp {
		protocol = packet.TCP
	}
	return fold(uint64(sum(addresses)) + uint64(protocol) + uint64(l.HeaderLen-l.L4+payload))
}
