package virtio

import (
	"encoding/binary"

	"weft/internal/packet"
)

// SegmentHeaders rewrites headers in place for a run of segments that begins with segment first and has payload bytes;
// last reports that the run includes the last segment of the superframe. headers is a copy of the superframe's headers,
// at least l.HeaderLen bytes long. The checksum stays partial: it becomes the sum of the shorter pseudo-header.
//
// It does the same as the kernel's segmentation (tcp_gso_segment, __udp_gso_segment, inet_gso_segment and
// ipv6_gso_segment), so that the receiver's kernel cuts the result into the frames that the sender's kernel would have
// made: it sets the sequence number, the lengths and the IPv4 id, clears FIN and PSH except on the last segment, and
// CWR except on the first. The id counts up whether or not DF is set, as the virtio header has no way to express a
// fixed id.
func (l Layout) SegmentHeaders(headers []byte, first, payload int, last bool) {
	headers = headers[:l.HeaderLen]
	transport := headers[l.L4:]
	if l.ipv6 {
		binary.BigEndian.PutUint16(headers[l.L3+packet.IPv6Length:], uint16(l.packetLen(payload)-packet.IPv6Len))
	} else {
		l.segmentIPv4(headers[l.L3:l.L4], first, payload)
	}
	l.adjustChecksum(transport, payload)
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

// segmentIPv4 sets the length, the id and the checksum of the IPv4 header b.
func (l *Layout) segmentIPv4(b []byte, first, payload int) {
	binary.BigEndian.PutUint16(b[packet.IPv4Length:], uint16(l.packetLen(payload)))
	id := binary.BigEndian.Uint16(b[packet.IPv4ID:])
	binary.BigEndian.PutUint16(b[packet.IPv4ID:], id+uint16(first))
	binary.BigEndian.PutUint16(b[packet.IPv4Checksum:], 0)
	binary.BigEndian.PutUint16(b[packet.IPv4Checksum:], ^sum(b))
}

// adjustChecksum changes the sum of the pseudo-header for l.Payload bytes to that for payload bytes. It adds only the
// difference, as the kernel does: with a routing header the sum covers a destination that is not in the IP header.
func (l *Layout) adjustChecksum(transport []byte, payload int) {
	headers := len(transport)
	field := transport[l.CsumOffset:]
	oldLen, newLen := uint16(headers+l.Payload), uint16(headers+payload)
	adjusted := fold(uint64(binary.BigEndian.Uint16(field)) + uint64(^oldLen) + uint64(newLen))
	binary.BigEndian.PutUint16(field, adjusted)
}
