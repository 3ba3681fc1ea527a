package virtio

import (
	"bytes"
	"encoding/binary"
	"errors"

	"weft/internal/packet"
)

// AddFrame adds a frame that stands for itself, whose checksum may be left to write. It is joined to frames of its flow
// before it where that changes nothing but how many there are. data is the Joiner's until Reset. On an error, which is
// ErrFull or one of CheckSingle's, unwrapped, nothing was added.
//
// The rules are those of the kernel's GRO (inet_gro_receive, tcp_gro_receive, udp_gro_receive): TCP segments in
// sequence with ACK, and PSH or FIN only on the last, and all else in their headers equal; UDP datagrams of equal
// length, and a shorter one as the last. IPv4 ids count up, or stay the same under DF, when they come out counting up:
// the id of what must not be fragmented means nothing (RFC 6864). Frames with Ethernet padding, IPv4 options, IPv6
// extension headers or UDP checksum 0 stay alone, and so do those whose checksum is wrong, as wrong as they came.
func (j *Coalescer) AddFrame(h Header, data []byte) error {
	if err := CheckSingle(h, data); err != nil {
		return err
	}
	if j.Full() {
		return ErrFull
	}
	e := j.push(data)
	e.offload = plainHeader(h)
	if j.features == 0 {
		return nil
	}
	l := &e.layout
	if err := l.locate(data); err != nil {
		if !errors.Is(err, ErrProtocol) {
			j.forget() // of which flow it is cannot be told, but it may be of one of ours
		}
		return nil
	}
	e.kind, e.payload = entryFrame, l.Payload
	able := j.features.Has(l.feature()) && e.joinable()
	slot, latest := j.find(l, data)
	if latest != nil {
		if able && latest.takes(e) {
			latest.add(e)
			j.extend(latest, data[l.HeaderLen:])
			if e.ends(latest) {
				latest.room = 0
			}
			j.pop()
			return nil
		}
		latest.room = 0
	}
	if able && e.starts() {
		l.SegmentSize = e.payload
		e.room = l.maxJoined() - 1
	}
	j.newest(slot)
	return nil
}

// plainHeader returns what of h is for the kernel: where a checksum is left to write.
func plainHeader(h Header) Header {
	if h.Flags&FlagNeedsChecksum == 0 {
		return Header{}
	}
	return Header{
		Flags: FlagNeedsChecksum, HdrLen: h.CsumStart + h.CsumOffset + 2, CsumStart: h.CsumStart, CsumOffset: h.CsumOffset,
	}
}

// joinable reports whether e may be joined with others, as far as its own headers say.
func (e *entry) joinable() bool {
	l := &e.layout
	if l.Payload <= 0 || l.HeaderLen+l.Payload != len(e.data) {
		return false // no payload, or padding, or cut short
	}
	if h := e.offload; h.Flags != 0 && (int(h.CsumStart) != l.L4 || int(h.CsumOffset) != l.CsumOffset) {
		return false
	}
	ip := e.data[l.L3:l.L4]
	if l.ipv6 {
		if len(ip) != packet.IPv6Len {
			return false
		}
	} else if len(ip) != packet.IPv4MinLen || ip[packet.IPv4Fragment]&0x80 != 0 {
		return false // options, or the reserved bit
	}
	transport := e.data[l.L4:]
	if l.tcp {
		return transport[tcpFlags]&(flagACK|flagSYN|flagRST|flagURG|flagCWR) == flagACK
	}
	return int(binary.BigEndian.Uint16(transport[udpLength:])) == udpLen+l.Payload &&
		binary.BigEndian.Uint16(transport[udpChecksum:]) != 0
}

// starts reports whether others may join e, which is joinable.
func (e *entry) starts() bool {
	return !e.layout.tcp || e.data[e.layout.L4+tcpFlags]&(flagPSH|flagFIN) == 0
}

// ends reports whether nothing may be joined to first any more behind e.
func (e *entry) ends(first *entry) bool { return e.payload < first.layout.SegmentSize || !e.starts() }

// takes reports whether next, which is joinable, may be joined to e. Payload is looked at last, and only where a
// complete checksum is to be replaced by a partial one.
func (e *entry) takes(next *entry) bool {
	l, m := &e.layout, &next.layout
	if e.room <= 0 || e.kind != entryFrame || l.L3 != m.L3 || l.L4 != m.L4 || l.HeaderLen != m.HeaderLen ||
		next.payload > l.SegmentSize || l.packetLen(e.payload+next.payload) > maxPacket ||
		!bytes.Equal(e.data[:l.L3], next.data[:l.L3]) {
		return false
	}
	if !e.sameNetwork(next) || l.tcp && !e.sameTCP(next) {
		return false
	}
	if !e.verified {
		if !e.verify() {
			e.room = 0
			return false
		}
		e.verified = true
	}
	return next.verify()
}

// sameNetwork reports whether the IP headers of e and next differ in length, checksum and a proper id only; that their
// addresses are the same is known.
func (e *entry) sameNetwork(next *entry) bool {
	a, b := e.data[e.layout.L3:e.layout.L4], next.data[e.layout.L3:e.layout.L4]
	if e.layout.ipv6 {
		return binary.BigEndian.Uint32(a) == binary.BigEndian.Uint32(b) && // version, class, flow label
			a[packet.IPv6Next] == b[packet.IPv6Next] && a[packet.IPv6HopLimit] == b[packet.IPv6HopLimit]
	}
	if a[packet.IPv4TOS] != b[packet.IPv4TOS] || a[packet.IPv4TTL] != b[packet.IPv4TTL] || a[packet.IPv4Fragment] != b[packet.IPv4Fragment] {
		return false
	}
	step := binary.BigEndian.Uint16(b[packet.IPv4ID:]) - binary.BigEndian.Uint16(a[packet.IPv4ID:])
	if e.count == 1 {
		return step == 1 || step == 0 && a[packet.IPv4Fragment]&(packet.IPv4DontFragment>>8) != 0
	}
	if e.fixedID {
		return step == 0
	}
	return step == uint16(e.count)
}

// sameTCP reports whether next continues e: the next sequence number, and all else but PSH and FIN and the checksum
// equal; that the ports are is known.
func (e *entry) sameTCP(next *entry) bool {
	a, b := e.data[e.layout.L4:e.layout.HeaderLen], next.data[e.layout.L4:e.layout.HeaderLen]
	sequence := binary.BigEndian.Uint32(a[tcpSequence:]) + uint32(e.payload)
	return binary.BigEndian.Uint32(b[tcpSequence:]) == sequence &&
		bytes.Equal(a[tcpAck:tcpFlags], b[tcpAck:tcpFlags]) &&
		(a[tcpFlags]^b[tcpFlags])&^(flagPSH|flagFIN) == 0 &&
		bytes.Equal(a[tcpWindow:tcpChecksum], b[tcpWindow:tcpChecksum]) &&
		bytes.Equal(a[tcpUrgent:], b[tcpUrgent:])
}

// verify reports whether the checksums of the frame e are right: of a partial one, that it is the pseudo-header's sum.
func (e *entry) verify() bool {
	l := &e.layout
	if !l.ipv6 && sum(e.data[l.L3:l.L4]) != 0xffff {
		return false
	}
	pseudo := l.pseudo(e.data, l.Payload)
	if e.offload.Flags != 0 {
		return binary.BigEndian.Uint16(e.data[l.L4+l.CsumOffset:]) == pseudo
	}
	return fold(uint64(pseudo)+uint64(sum(e.data[l.L4:]))) == 0xffff
}

// add notes what next, which is about to be joined to e, brings beside payload.
func (e *entry) add(next *entry) {
	l := &e.layout
	if e.count == 1 && !l.ipv6 {
		at := l.L3 + packet.IPv4ID
		e.fixedID = bytes.Equal(e.data[at:at+2], next.data[at:at+2])
	}
	if l.tcp {
		e.closing = next.data[l.L4+tcpFlags] & (flagPSH | flagFIN)
	}
}

// widen rewrites the headers of e for all frames joined to it.
func (e *entry) widen() {
	l := &e.layout
	field := e.data[l.L4+l.CsumOffset:]
	binary.BigEndian.PutUint16(field, l.pseudo(e.data, l.Payload))
	l.SegmentHeaders(e.data, 0, e.payload, true)
	if l.tcp {
		e.data[l.L4+tcpFlags] |= e.closing
	}
}
