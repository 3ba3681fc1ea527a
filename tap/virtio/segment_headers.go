package virtio

import (
	"encoding/binary"

	"weft/internal/packet"
)

// Narrow rewrites headers, a copy of the superframe's headers as long as l.HeaderLen at least, in place, so that they
// fit payload bytes from segment first on; last says that the last segment of the superframe is among them. The
// checksum stays one to be written, over the shorter pseudo-header.
//
// It does what the kernel's segmentation does, so that the result is cut into just those frames which the sender's
// kernel would have cut from the whole: sequence number; IP id, counted up whether or not DF is set, as the header of
// virtio cannot say otherwise; lengths; FIN and PSH on the last segment only, CWR on the first only (tcp_gso_segment,
// __udp_gso_segment, inet_gso_segment and ipv6_gso_segment).
func (l Layout) SegmentHeaders(headers []byte, first, payload int, last bool) {
	headers = headers[:l.HeaderLen]
	transport := headers[l.L4:]
	if l.ipv6 {
		binary.BigEndian.PutUint16(headers[l.L3+packet.IPv6Length:], uint16(l.packetLen(payload)-packet.IPv6Len))
	} else {
		l.narrowIPv4(headers[l.L3:l.L4], first, payload)
	}
	l.moveChecksum(transport, payload)
	if !l.tcp {
		binary.BigEndian.PutUint16(transport[udpLength:], uint16(udpLen+payload))
		return
	}
	sequence := binary.BigEndian.Uint32(transport[tcpSequence:])
	binary.BigEndian.PutUint32(transport[tcpSequence:], sequence+uint32(first*l.SegmentSize))
	if !last {
		transport[tcpFlags] &^= flagFIN | flagPSH
	}
	if first > 0 {
		transport[tcpFlags] &^= flagCWR
	}
}

// narrowIPv4 sets the length, the id and the checksum of the IPv4 header b.
func (l *Layout) narrowIPv4(b []byte, first, payload int) {
	binary.BigEndian.PutUint16(b[packet.IPv4Length:], uint16(l.packetLen(payload)))
	id := binary.BigEndian.Uint16(b[packet.IPv4ID:])
	binary.BigEndian.PutUint16(b[packet.IPv4ID:], id+uint16(first))
	binary.BigEndian.PutUint16(b[packet.IPv4Checksum:], 0)
	binary.BigEndian.PutUint16(b[packet.IPv4Checksum:], ^sum(b))
}

// moveChecksum turns the sum of the pseudo-header for l.Payload bytes into that for payload bytes. Only the difference
// is added, as in the kernel: with a routing header the sum is over a destination that the IP header does not name.
func (l *Layout) moveChecksum(transport []byte, payload int) {
	headers := len(transport)
	field := transport[l.CsumOffset:]
	was, is := uint16(headers+l.Payload), uint16(headers+payload)
	moved := fold(uint64(binary.BigEndian.Uint16(field)) + uint64(^was) + uint64(is))
	binary.BigEndian.PutUint16(field, moved)
}
