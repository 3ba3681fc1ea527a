package wire

import (
	"encoding/binary"

	"weft/internal/ether"
)

// MetaLen is the length of Meta in bytes.
const MetaLen = 8

// MaxOffset is the most that HeaderLen, CsumStart and CsumOffset can say: headers longer than that cannot be described.
const MaxOffset = 1<<8 - 1

// maxSuperframe is the most payload bytes that one superframe stands for: the length field of IPv4 has 16 bits.
const maxSuperframe = 1<<16 - 1

// Kind says what superframe a slice belongs to. The numbers are the wire's own, not virtio's.
type Kind uint8

// Kinds of superframe. KindNone, the zero Kind, is a frame that stands for itself.
const (
	KindNone  Kind = 0
	KindTCPv4 Kind = 1
	KindTCPv6 Kind = 2
	KindUDP   Kind = 3 // segments are whole UDP datagrams, over IPv4 or IPv6
)

// Bits of the flags byte: the kind below, then what is said of the slice. The two highest are zero and kept for later.
const (
	maskKind     = 0x07
	flagECN      = 0x08
	flagPartial  = 0x10
	flagLast     = 0x20
	maskReserved = 0xc0
)

// Meta is what a receiver must know to hand a frame on as the sender's kernel handed it over: the checksum left to
// write, and which slice of which kind of superframe this is. The zero Meta is that of a plain frame, eight zero bytes.
//
// A slice is a datagram's share of a superframe: all headers up to HeaderLen, then the payload bytes of one segment.
type Meta struct {
	Kind Kind
	// ECN: the TCP flag CWR belongs to the first segment only. For the TCP kinds.
	ECN bool
	// Partial: the checksum at CsumStart + CsumOffset holds the pseudo-header's sum only. Always so for a superframe.
	Partial bool
	// Last: no slice of the superframe comes after this one. Never set for a frame that stands for itself.
	Last bool
	// HeaderLen is the length in bytes of the slice's headers, the Ethernet header included. 0 for a frame that stands
	// for itself.
	HeaderLen uint8
	// CsumStart is where summing starts, in bytes from the start of the frame; 0 unless Partial.
	CsumStart uint8
	// CsumOffset is where the sum goes, in bytes from CsumStart; 0 unless Partial.
	CsumOffset uint8
	// SegmentSize is the payload bytes of every slice but the last, which may have fewer; 0 unless a superframe.
	SegmentSize uint16
	// Index is the place of this slice in its superframe, from 0. 16 bits: a small MSS makes more than 255 of 64 KiB.
	Index uint16
}

// ParseMeta reads the metadata at the start of b and returns the frame that follows, which still lies in b. It checks
// every field against the others and against the frame's length: what it returns may be followed without further
// checks of bounds. The errors are ErrShort and ErrMeta, unwrapped.
func ParseMeta(b []byte) (m Meta, frame []byte, err error) {
	if len(b) < MetaLen {
		return Meta{}, nil, ErrShort
	}
	frame = b[MetaLen:]
	if binary.NativeEndian.Uint64(b) == 0 {
		return Meta{}, frame, nil // a plain frame: nearly all of them, once datagrams come one by one
	}
	if b[0]&maskReserved != 0 {
		return Meta{}, nil, ErrMeta
	}
	m = Meta{
		Kind:        Kind(b[0] & maskKind),
		ECN:         b[0]&flagECN != 0,
		Partial:     b[0]&flagPartial != 0,
		Last:        b[0]&flagLast != 0,
		HeaderLen:   b[1],
		CsumStart:   b[2],
		CsumOffset:  b[3],
		SegmentSize: binary.BigEndian.Uint16(b[4:]),
		Index:       binary.BigEndian.Uint16(b[6:]),
	}
	if !m.fits(len(frame)) {
		return Meta{}, nil, ErrMeta
	}
	return m, frame, nil
}

// Put writes m to the first MetaLen bytes of b, which must be there.
func (m Meta) Put(b []byte) {
	_ = b[MetaLen-1]
	b[0] = uint8(m.Kind) & maskKind
	if m.ECN {
		b[0] |= flagECN
	}
	if m.Partial {
		b[0] |= flagPartial
	}
	if m.Last {
		b[0] |= flagLast
	}
	b[1], b[2], b[3] = m.HeaderLen, m.CsumStart, m.CsumOffset
	binary.BigEndian.PutUint16(b[4:], m.SegmentSize)
	binary.BigEndian.PutUint16(b[6:], m.Index)
}

// IsPlain reports whether the frame stands for itself and has all its checksums.
func (m Meta) IsPlain() bool { return m == Meta{} }

// fits reports whether m can be true of a frame of n bytes.
func (m Meta) fits(n int) bool {
	if m.Partial {
		sum := int(m.CsumStart) + int(m.CsumOffset)
		if m.CsumStart < ether.HeaderLen || sum+2 > n {
			return false
		}
	} else if m.CsumStart != 0 || m.CsumOffset != 0 {
		return false
	}
	switch m.Kind {
	case KindNone:
		return !m.ECN && !m.Last && m.HeaderLen == 0 && m.SegmentSize == 0 && m.Index == 0
	case KindTCPv4, KindTCPv6:
		return m.fitsSlice(n)
	case KindUDP:
		return !m.ECN && m.fitsSlice(n)
	default:
		return false
	}
}

// fitsSlice reports whether m can be true of a slice of n bytes.
func (m Meta) fitsSlice(n int) bool {
	payload := n - int(m.HeaderLen)
	switch {
	case !m.Partial, int(m.CsumStart)+int(m.CsumOffset)+2 > int(m.HeaderLen):
		return false // a superframe's checksum lies in its headers, and nobody has written it
	case payload <= 0, payload > int(m.SegmentSize):
		return false
	case payload < int(m.SegmentSize) && !m.Last:
		return false
	}
	return int(m.Index)*int(m.SegmentSize)+payload <= maxSuperframe
}
