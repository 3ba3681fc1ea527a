package virtio

import (
	"bytes"
	"encoding/binary"
	"errors"

	"weft/internal/packet"
)

// AddFrame adds a single frame, which may have a checksum to complete. It is merged into the frames of its flow before
// it if the receiver then gets the same frames in fewer superframes. The Coalescer owns data until Reset. The errors
// are ErrFull and those of CheckSingle, unwrapped; nothing was added then.
//
// The rules are those of the kernel's GRO (inet_gro_receive, tcp_gro_receive, udp_gro_receive). TCP segments must be in
// sequence and have ACK; only the last one may have PSH or FIN, and all other header fields must be equal. UDP
// datagrams must have equal lengths, except for a shorter last one. IPv4 ids must count up, or be equal with DF set;
// the result counts up in both cases, as the id of a packet that must not be fragmented has no meaning (RFC 6864).
// Frames with Ethernet padding, IPv4 options, IPv6 extension headers or UDP checksum 0 are not merged. Neither are
// frames with a wrong checksum: they are passed on unchanged.
func (c *Coalescer) AddFrame(h Header, data []byte) error {
	if err := CheckSingle(h, data); err != nil {
		return err
	}
	if c.Full() {
		return ErrFull
	}
	e := c.newEntry(data)
	e.offload = checksumOnly(h)
	if c.features == 0 {
		return nil
	}
	l := &e.layout
	if err := l.locate(data); err != nil {
		if !errors.Is(err, ErrProtocol) {
			c.forgetFlows() // its flow is unknown, but may be one of those in the batch
		}
		return nil
	}
	e.kind, e.payload = entryFrame, l.Payload
	eligible := c.features.Has(l.feature()) && e.mergeable()
	slot, latest := c.findFlow(l, data)
	if latest != nil {
		if eligible && latest.canMerge(e) {
			latest.recordMerge(e)
			c.appendPayload(latest, data[l.HeaderLen:])
			if e.closes(latest) {
				latest.room = 0
			}
			c.dropLast()
			return nil
		}
		latest.room = 0
	}
	if eligible && e.keepsOpen() {
		l.SegmentSize = e.payload
		e.room = l.maxMerged() - 1
	}
	c.setLatest(slot)
	return nil
}

// checksumOnly returns the part of h that the kernel needs: the place of a checksum to complete.
func checksumOnly(h Header) Header {
	if h.Flags&FlagNeedsChecksum == 0 {
		return Header{}
	}
	return Header{
		Flags: FlagNeedsChecksum, HdrLen: h.CsumStart + h.CsumOffset + 2, CsumStart: h.CsumStart, CsumOffset: h.CsumOffset,
	}
}

// mergeable reports whether the headers of e allow it to be merged with others.
func (e *entry) mergeable() bool {
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

// keepsOpen reports whether other frames may be merged into e, which is mergeable.
func (e *entry) keepsOpen() bool {
	return !e.layout.tcp || e.data[e.layout.L4+tcpFlags]&(flagPSH|flagFIN) == 0
}

// closes reports whether nothing more may be merged into first behind e.
func (e *entry) closes(first *entry) bool {
	return e.payload < first.layout.SegmentSize || !e.keepsOpen()
}

// canMerge reports whether next, which is mergeable, may be merged into e. It reads payload last, and only where a
// complete checksum would be replaced by a partial one.
func (e *entry) canMerge(next *entry) bool {
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

// sameNetwork reports whether the IP headers of e and next, which have the same addresses, differ only in length,
// checksum and an id in sequence.
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

// sameTCP reports whether next continues e, which has the same ports: it has the next sequence number, and differs only
// in PSH, FIN and the checksum.
func (e *entry) sameTCP(next *entry) bool {
	a, b := e.data[e.layout.L4:e.layout.HeaderLen], next.data[e.layout.L4:e.layout.HeaderLen]
	sequence := binary.BigEndian.Uint32(a[tcpSequence:]) + uint32(e.payload)
	return binary.BigEndian.Uint32(b[tcpSequence:]) == sequence &&
		bytes.Equal(a[tcpAck:tcpFlags], b[tcpAck:tcpFlags]) &&
		(a[tcpFlags]^b[tcpFlags])&^(flagPSH|flagFIN) == 0 &&
		bytes.Equal(a[tcpWindow:tcpChecksum], b[tcpWindow:tcpChecksum]) &&
		bytes.Equal(a[tcpUrgent:], b[tcpUrgent:])
}

// verify reports whether the checksums of the frame e are correct. A partial checksum must be the sum of the
// pseudo-header.
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

// recordMerge records in e the header fields of next, which is about to be merged into it.
func (e *entry) recordMerge(next *entry) {
	l := &e.layout
	if e.count == 1 && !l.ipv6 {
		at := l.L3 + packet.IPv4ID
		e.fixedID = bytes.Equal(e.data[at:at+2], next.data[at:at+2])
	}
	if l.tcp {
		e.closing = next.data[l.L4+tcpFlags] & (flagPSH | flagFIN)
	}
}

// widenHeaders rewrites the headers of e for all frames merged into it.
func (e *entry) widenHeaders() {
	l := &e.layout
	field := e.data[l.L4+l.CsumOffset:]
	binary.BigEndian.PutUint16(field, l.pseudo(e.data, l.Payload))
	l.SegmentHeaders(e.data, 0, e.payload, true)
	if l.tcp {
		e.data[l.L4+tcpFlags] |= e.closing
	}
}
