package toobig

import (
	"encoding/binary"

	"weft/internal/packet"
)

// Fragment cuts the IPv4 packet in frame into fragments that fit mtu, and calls emit with a frame of each, in order;
// emit must not keep it. The packet may be a fragment itself. All its checksums must be complete, so it must not be a
// superframe. The errors are ErrMalformed, ErrForbidden and ErrMTU, unwrapped; nothing was emitted then.
func Fragment(frame []byte, mtu int, emit func(frame []byte)) error {
	p, ok := parse(frame)
	if !ok || p.version != 4 {
		return ErrMalformed
	}
	mtu = p.room(mtu)
	payload, ok := p.payload()
	later, sound := laterOptions(p.ip[packet.IPv4MinLen:p.header])
	switch {
	case !ok, !sound:
		return ErrMalformed
	case p.dontFragment():
		return ErrForbidden
	case mtu < minIPv4:
		return ErrMTU
	}
	p.cut(payload, later, mtu, emit)
	return nil
}

// cut calls emit with the fragments of payload that fit mtu; later are the options of all fragments except the first.
func (p *ipFrame) cut(payload, later []byte, mtu int, emit func([]byte)) {
	options := p.ip[packet.IPv4MinLen:p.header]
	buf := make([]byte, 0, len(p.link)+mtu)
	for at, more := 0, true; more; options = later {
		header := packet.IPv4MinLen + len(options)
		n := len(payload) - at
		if more = header+n > mtu; more {
			n = (mtu - header) &^ 7 // all but the last are multiples of 8 bytes
		}
		buf = append(append(append(buf[:0], p.link...), p.ip[:packet.IPv4MinLen]...), options...)
		buf = append(buf, payload[at:at+n]...)
		p.finish(buf[len(p.link):], header, at, more)
		emit(buf)
		at += n
	}
}

// payload returns the payload without the frame's padding. ok is false if header and frame contradict each other: the
// fragments would have correct checksums nonetheless.
func (p *ipFrame) payload() (payload []byte, ok bool) {
	total := int(binary.BigEndian.Uint16(p.ip[packet.IPv4Length:]))
	if total < p.header || total > len(p.ip) || sum(p.ip[:p.header]) != 0xffff {
		return nil, false
	}
	payload = p.ip[p.header:total]
	field := p.fragmentField()
	offset := int(field&packet.IPv4OffsetMask) * 8
	if field&packet.IPv4MoreFragments != 0 && (len(payload)%8 != 0 || len(payload) == 0) {
		return nil, false
	}
	return payload, offset+len(payload) <= 1<<16-1
}

// finish sets the header fields of the fragment b, with a header of n bytes, that differ from those of the packet. Its
// payload starts at byte at of the packet's payload, and more reports whether further fragments follow.
func (p *ipFrame) finish(b []byte, n, at int, more bool) {
	field := p.fragmentField() + uint16(at/8)
	if more {
		field |= packet.IPv4MoreFragments // the last fragment has the flag of the packet
	}
	b[0] = 4<<4 | uint8(n/4)
	binary.BigEndian.PutUint16(b[packet.IPv4Length:], uint16(len(b)))
	binary.BigEndian.PutUint16(b[packet.IPv4Fragment:], field)
	putChecksum(b[:n])
}

// laterOptions returns the options that all fragments have, padded to 4 bytes: those with the copied flag in their type
// (RFC 791, section 3.1). ok is false if an option exceeds the end of options.
func laterOptions(options []byte) (later []byte, ok bool) {
	const copied = 0x80
	for len(options) > 0 {
		switch options[0] {
		case 0: // end of options
			options = nil
			continue
		case 1: // no operation
			options = options[1:]
			continue
		}
		if len(options) < 2 || options[1] < 2 || int(options[1]) > len(options) {
			return nil, false
		}
		if n := options[1]; options[0]&copied != 0 {
			later = append(later, options[:n]...)
		}
		options = options[options[1]:]
	}
	for len(later)%4 != 0 {
		later = append(later, 0)
	}
	return later, true
}

// putChecksum writes the checksum of an IPv4 header (RFC 791, section 3.1).
func putChecksum(header []byte) {
	field := header[packet.IPv4Checksum:]
	binary.BigEndian.PutUint16(field, 0)
	binary.BigEndian.PutUint16(field, ^sum(header))
}

// sum returns the ones' complement sum of b, which has an even length: 0xffff for a header with a correct checksum.
func sum(b []byte) uint16 {
	var s uint32
	for i := 0; i+1 < len(b); i += 2 {
		s += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
