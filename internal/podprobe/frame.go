package podprobe

import (
	"bytes"
	"encoding/binary"
	"net/netip"
)

// Layout of a probe: Ethernet, IPv4 or IPv6 without options, TCP without options (RFC 9293). The number of the probe is the sequence
// number of the segment.
const (
	etherLen = 14
	ip4Len   = 20
	ip6Len   = 40
	tcpLen   = 20

	etherIPv4 = 0x0800
	etherIPv6 = 0x86dd

	protocolTCP = 6
	hopLimit    = 64
	portDiscard = 9 // RFC 863
	sourcePort  = 49151
	flagSYN     = 0x02
)

// frame returns the probe with the given number, from and to an address.
func frame(addr netip.Addr, number uint32) []byte {
	f := make([]byte, etherLen, etherLen+ip6Len+tcpLen)
	copy(f, receiverMAC[:])
	copy(f[6:], senderMAC[:])
	segment := make([]byte, tcpLen)
	binary.BigEndian.PutUint16(segment, sourcePort)
	binary.BigEndian.PutUint16(segment[2:], portDiscard)
	binary.BigEndian.PutUint32(segment[4:], number)
	segment[12], segment[13] = tcpLen/4<<4, flagSYN
	binary.BigEndian.PutUint16(segment[14:], 1<<15) // window
	pseudo := append(addr.AsSlice(), addr.AsSlice()...)
	pseudo = append(pseudo, 0, protocolTCP, 0, tcpLen)
	binary.BigEndian.PutUint16(segment[16:], checksum(append(pseudo, segment...)))
	if addr.Is4() {
		binary.BigEndian.PutUint16(f[12:], etherIPv4)
		header := make([]byte, ip4Len)
		header[0], header[8], header[9] = 0x45, hopLimit, protocolTCP
		binary.BigEndian.PutUint16(header[2:], ip4Len+tcpLen)
		copy(header[12:], addr.AsSlice())
		copy(header[16:], addr.AsSlice())
		binary.BigEndian.PutUint16(header[10:], checksum(header))
		return append(append(f, header...), segment...)
	}
	binary.BigEndian.PutUint16(f[12:], etherIPv6)
	header := make([]byte, ip6Len)
	header[0], header[6], header[7] = 0x60, protocolTCP, hopLimit
	binary.BigEndian.PutUint16(header[4:], tcpLen)
	copy(header[8:], addr.AsSlice())
	copy(header[24:], addr.AsSlice())
	return append(append(f, header...), segment...)
}

// checksum is that of RFC 1071. The length of b is even.
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum) //nolint:gosec // it fits
}

// numberOf returns the number of a probe; ok is false for another frame.
func numberOf(f []byte) (number uint32, ok bool) {
	if len(f) < etherLen || !bytes.Equal(f[:6], receiverMAC[:]) || !bytes.Equal(f[6:12], senderMAC[:]) {
		return 0, false
	}
	at := etherLen + ip4Len
	if binary.BigEndian.Uint16(f[12:]) == etherIPv6 {
		at = etherLen + ip6Len
	}
	if len(f) < at+tcpLen {
		return 0, false
	}
	return binary.BigEndian.Uint32(f[at+4:]), true
}
