package virtio

import (
	"encoding/binary"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Lengths of headers in bytes, without options.
const (
	tcpMinLen = 20
	udpLen    = 8
)

// fragmented selects, of an IPv4 header's flags and offset, what only fragments have: more fragments, and the offset.
const fragmented = packet.IPv4MoreFragments | packet.IPv4OffsetMask

// Offsets in the TCP header (RFC 9293, section 3.1) and its flags.
const (
	tcpSequence = 4
	tcpAck      = 8
	tcpOffset   = 12 // in 32-bit words, in the upper four bits
	tcpFlags    = 13
	tcpWindow   = 14
	tcpChecksum = 16
	tcpUrgent   = 18

	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagPSH = 0x08
	flagACK = 0x10
	flagURG = 0x20
	flagCWR = 0x80
)

// Offsets in the UDP header (RFC 768).
const (
	udpLength   = 4
	udpChecksum = 6
)

// maxTags is the most VLAN tags of a superframe.
const maxTags = 2

// locate sets l to the place of the headers of a TCP or UDP packet. Payload is the length that the IP header claims, 0
// or less where the header contradicts itself; the payload need not be in frame. The errors are ErrTruncated,
// ErrProtocol, ErrFragment and ErrLength.
func (l *Layout) locate(frame []byte) error {
	at, etherType, ok := packet.Ethernet(frame, maxTags)
	if !ok {
		return ErrTruncated
	}
	*l = Layout{L3: at}
	var protocol packet.Protocol
	var packetLen int
	var err error
	switch etherType {
	case ether.TypeIPv4:
		at, protocol, packetLen, err = skipIPv4(frame, at)
	case ether.TypeIPv6:
		l.ipv6 = true
		at, protocol, packetLen, err = skipIPv6(frame, at)
	default:
		err = ErrProtocol
	}
	if err != nil {
		return err
	}
	l.L4 = at
	switch protocol {
	case packet.TCP:
		l.tcp, l.CsumOffset = true, tcpChecksum
		l.HeaderLen, err = skipTCP(frame, at)
	case packet.UDP:
		l.CsumOffset, l.HeaderLen = udpChecksum, at+udpLen
		if l.HeaderLen > len(frame) {
			err = ErrTruncated
		}
	default:
		err = ErrProtocol
	}
	l.Payload = l.L3 + packetLen - l.HeaderLen
	return err
}

// skipIPv4 returns the offset of the payload of the IPv4 packet at the offset l3, its protocol, and the packet's
// length.
func skipIPv4(frame []byte, l3 int) (l4 int, protocol packet.Protocol, packetLen int, err error) {
	if len(frame) < l3+packet.IPv4MinLen {
		return 0, 0, 0, ErrTruncated
	}
	b := frame[l3:]
	length := packet.IPv4HeaderLen(b)
	switch {
	case b[0]>>4 != 4:
		return 0, 0, 0, ErrProtocol
	case length < packet.IPv4MinLen:
		return 0, 0, 0, ErrLength
	case len(b) < length:
		return 0, 0, 0, ErrTruncated
	case binary.BigEndian.Uint16(b[packet.IPv4Fragment:])&fragmented != 0:
		return 0, 0, 0, ErrFragment
	}
	return l3 + length, packet.Protocol(b[packet.IPv4Protocol]), int(binary.BigEndian.Uint16(b[packet.IPv4Length:])), nil
}

// skipIPv6 does the same for IPv6. It walks over the extension headers that the kernel's segmentation walks over
// (net/ipv6/exthdrs_offload.c): not over AH, nor over fragment headers.
func skipIPv6(frame []byte, l3 int) (l4 int, protocol packet.Protocol, packetLen int, err error) {
	if len(frame) < l3+packet.IPv6Len {
		return 0, 0, 0, ErrTruncated
	}
	b := frame[l3:]
	if b[0]>>4 != 6 {
		return 0, 0, 0, ErrProtocol
	}
	packetLen = packet.IPv6Len + int(binary.BigEndian.Uint16(b[packet.IPv6Length:]))
	if packetLen > maxPacket {
		return 0, 0, 0, ErrLength
	}
	protocol, at, result := packet.Transport(b, packet.Options)
	switch {
	case result == packet.Truncated:
		return 0, 0, 0, ErrTruncated
	case result == packet.TooMany:
		return 0, 0, 0, ErrProtocol
	case protocol == packet.Fragment:
		return 0, 0, 0, ErrFragment
	}
	return l3 + at, protocol, packetLen, nil
}

// skipTCP returns the offset of the payload of the TCP segment at the offset l4.
func skipTCP(frame []byte, l4 int) (payload int, err error) {
	if len(frame) < l4+tcpMinLen {
		return 0, ErrTruncated
	}
	length := int(frame[l4+tcpOffset]>>4) * 4
	switch {
	case length < tcpMinLen:
		return 0, ErrLength
	case len(frame) < l4+length:
		return 0, ErrTruncated
	}
	return l4 + length, nil
}
