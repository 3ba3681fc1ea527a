package e2e

import (
	"cmp"
	"encoding/binary"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// tcpSegment is a TCP segment with a payload, or with the SYN flag.
type tcpSegment struct {
	flow    tcpFlow
	syn     bool
	seq     uint32
	payload []byte
}

// tcpFlow is one direction of a TCP connection.
type tcpFlow struct{ from, to netip.AddrPort }

// tcp returns the segment in an IPv4 packet, and false if there is none.
func (p packet) tcp() (s tcpSegment, ok bool) {
	if len(p.frame) < 14+20 || binary.BigEndian.Uint16(p.frame[12:]) != unix.ETH_P_IP || p.frame[14+9] != unix.IPPROTO_TCP {
		return tcpSegment{}, false
	}
	ip := p.frame[14:]
	header, end := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if end > len(ip) || end < header+20 {
		return tcpSegment{}, false
	}
	seg := ip[header:end]
	if offset := int(seg[12]>>4) * 4; offset <= len(seg) {
		s = tcpSegment{
			flow: tcpFlow{endpoint(ip[12:16], seg[0:]), endpoint(ip[16:20], seg[2:])},
			syn:  seg[13]&2 != 0, seq: binary.BigEndian.Uint32(seg[4:]), payload: seg[offset:],
		}
	}
	return s, s.syn || len(s.payload) > 0
}

// tcpStreams returns what was sent in each direction of the TCP connections from or to a port, in the order of their beginning. A
// stream ends at the first gap.
func tcpStreams(packets []packet, port uint16) (streams [][]byte) {
	connections := map[tcpFlow][]tcpSegment{}
	for _, p := range packets {
		s, ok := p.tcp()
		if !ok || s.flow.from.Port() != port && s.flow.to.Port() != port {
			continue
		}
		if before := connections[s.flow]; s.syn && len(before) > 0 && before[0].seq != s.seq { // the ports of an earlier connection
			streams = append(streams, assemble(before))
			delete(connections, s.flow)
		}
		connections[s.flow] = append(connections[s.flow], s)
	}
	for _, segments := range connections {
		streams = append(streams, assemble(segments))
	}
	return slices.DeleteFunc(streams, func(b []byte) bool { return len(b) == 0 })
}

// assemble returns what the segments of one direction of a connection carry, up to the first gap.
func assemble(segments []tcpSegment) (stream []byte) {
	first := segments[0].seq
	slices.SortStableFunc(segments, func(a, b tcpSegment) int { return cmp.Compare(a.seq-first, b.seq-first) })
	next := first
	for _, s := range segments {
		if s.syn {
			next = s.seq + 1
			continue
		}
		if again := next - s.seq; again < uint32(len(s.payload)) {
			stream = append(stream, s.payload[again:]...)
			next = s.seq + uint32(len(s.payload))
		}
	}
	return stream
}
