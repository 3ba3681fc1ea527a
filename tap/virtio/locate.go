package virtio

import (
	"encoding/binary"

	"weft/internal/ether"
)

// Lengths of headers in bytes, without options.
const (
	tagLen     = 4
	ipv4MinLen = 20
	ipv6Len    = 40
	tcpMinLen  = 20
	udpLen     = 8
)

// Offsets in the IPv4 header (RFC 791, section 3.1).
const (
	ipv4TOS      = 1
	ipv4Length   = 2
	ipv4ID       = 4
	ipv4Fragment = 6 // three flags, then the offset
	ipv4TTL      = 8
	ipv4Protocol = 9
	ipv4Checksum = 10
	ipv4Source   = 12

	fragmentMask = 0x3fff // more fragments, and the offset: all but DF and the reserved bit
	fragmentDF   = 0x4000
)

// Offsets in the IPv6 header (RFC 8200, section 3).
const (
	ipv6Length   = 4
	ipv6Next     = 6
	ipv6HopLimit = 7
	ipv6Source   = 8
)

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

// typeQinQ is the EtherType of an 802.1ad tag.
const typeQinQ = 0x88a8

// Limits of what is looked through.
const (
	maxTags       = 2
	maxExtensions = 8 // of IPv6; nobody sends as many
)

// IP protocol numbers.
const (
	protoHopByHop = 0
	protoTCP      = 6
	protoUDP      = 17
	protoRouting  = 43
	protoFragment = 44
	protoOptions  = 60
)

// locate sets l to where the headers of a TCP or UDP packet are. Payload is what the IP header says, 0 or less where it
// contradicts itself, and need not be there. The errors are ErrTruncated, ErrProtocol, ErrFragment and ErrLength.
func (l *Layout) locate(frame []byte) error {
	at, kind, err := skipTags(frame)
	if err != nil {
		return err
	}
	*l = Layout{L3: at}
	var protocol uint8
	var packet int
	switch kind {
	case ether.TypeIPv4:
		at, protocol, packet, err = skipIPv4(frame, at)
	case ether.TypeIPv6:
		l.ipv6 = true
		at, protocol, packet, err = skipIPv6(frame, at)
	default:
		err = ErrProtocol
	}
	if err != nil {
		return err
	}
	l.L4 = at
	switch protocol {
	case protoTCP:
		l.tcp, l.CsumOffset = true, tcpChecksum
		l.HeaderLen, err = skipTCP(frame, at)
	case protoUDP:
		l.CsumOffset, l.HeaderLen = udpChecksum, at+udpLen
		if l.HeaderLen > len(frame) {
			err = ErrTruncated
		}
	default:
		err = ErrProtocol
	}
	l.Payload = l.L3 + packet - l.HeaderLen
	return err
}

// skipTags returns where the payload of an Ethernet frame starts, and its EtherType.
func skipTags(frame []byte) (at int, kind uint16, err error) {
	if len(frame) < ether.HeaderLen {
		return 0, 0, ErrTruncated
	}
	at, kind = ether.HeaderLen, ether.Type(frame)
	for range maxTags {
		if kind != ether.TypeVLAN && kind != typeQinQ {
			break
		}
		if len(frame) < at+tagLen {
			return 0, 0, ErrTruncated
		}
		kind = binary.BigEndian.Uint16(frame[at+2:])
		at += tagLen
	}
	return at, kind, nil
}

// skipIPv4 returns where the payload of the IPv4 packet at at starts, its protocol, and the packet's length.
func skipIPv4(frame []byte, at int) (next int, protocol uint8, packet int, err error) {
	if len(frame) < at+ipv4MinLen {
		return 0, 0, 0, ErrTruncated
	}
	b := frame[at:]
	length := int(b[0]&0x0f) * 4
	switch {
	case b[0]>>4 != 4:
		return 0, 0, 0, ErrProtocol
	case length < ipv4MinLen:
		return 0, 0, 0, ErrLength
	case len(b) < length:
		return 0, 0, 0, ErrTruncated
	case binary.BigEndian.Uint16(b[ipv4Fragment:])&fragmentMask != 0:
		return 0, 0, 0, ErrFragment
	}
	return at + length, b[ipv4Protocol], int(binary.BigEndian.Uint16(b[ipv4Length:])), nil
}

// skipIPv6 is skipIPv4 for IPv6. It looks through the extension headers that the kernel's segmentation looks through
// (net/ipv6/exthdrs_offload.c).
func skipIPv6(frame []byte, at int) (next int, protocol uint8, packet int, err error) {
	if len(frame) < at+ipv6Len {
		return 0, 0, 0, ErrTruncated
	}
	if frame[at]>>4 != 6 {
		return 0, 0, 0, ErrProtocol
	}
	packet = ipv6Len + int(binary.BigEndian.Uint16(frame[at+ipv6Length:]))
	if packet > maxPacket {
		return 0, 0, 0, ErrLength
	}
	protocol = frame[at+ipv6Next]
	at += ipv6Len
	for range maxExtensions {
		switch protocol {
		case protoHopByHop, protoRouting, protoOptions:
		case protoFragment:
			return 0, 0, 0, ErrFragment
		default:
			return at, protocol, packet, nil
		}
		if len(frame) < at+2 {
			return 0, 0, 0, ErrTruncated
		}
		protocol, at = frame[at], at+8*(1+int(frame[at+1]))
	}
	return 0, 0, 0, ErrProtocol
}

// skipTCP returns where the payload of the TCP segment at at starts.
func skipTCP(frame []byte, at int) (next int, err error) {
	if len(frame) < at+tcpMinLen {
		return 0, ErrTruncated
	}
	length := int(frame[at+tcpOffset]>>4) * 4
	switch {
	case length < tcpMinLen:
		return 0, ErrLength
	case len(frame) < at+length:
		return 0, ErrTruncated
	}
	return at + length, nil
}
