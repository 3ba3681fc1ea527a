package wire

import (
	"encoding/binary"

	"weft/internal/ether"
)

// MetaLen is the length of Meta in bytes.
const MetaLen = 8

// MaxOffset is the largest value of HeaderLen, CsumStart and CsumOffset: longer headers cannot be described.
const MaxOffset = 1<<8 - 1

// maxSuperframe is the most payload bytes of one superframe: the length field of IPv4 has 16 bits.
const maxSuperframe = 1<<16 - 1

// Kind is the kind of superframe that a segment belongs to. The numbers are those of the wire format, not of virtio.
type Kind uint8

// Kinds of superframe. KindNone, the zero Kind, is a single frame.
const (
	KindNone  Kind = 0
	KindTCPv4 Kind = 1
	KindTCPv6 Kind = 2
	KindUDP   Kind = 3 // segments are whole UDP datagrams, over IPv4 or IPv6
)

// Bits of the flags byte: the kind in the lowest bits, then flags of the segment. The highest is reserved and zero.
const (
	maskKind     = 0x07
	flagECN      = 0x08
	flagPartial  = 0x10
	flagLast     = 0x20
	flagEntropy  = 0x40
	maskReserved = 0x80
)

// Meta describes the work that the sender's kernel left undone in a frame: the checksum to complete, and the kind of
// superframe and the segment of it in this datagram. The zero Meta describes a plain frame and is eight zero bytes.
//
// A segment of a superframe is sent as all headers up to HeaderLen, then the payload bytes of the segment.
type Meta struct {
	Kind Kind
	// ECN: only the first segment has the TCP flag CWR. For the TCP kinds.
	ECN bool
	// Partial: the checksum at CsumStart + CsumOffset is the sum of the pseudo-header only. Always set for a
	// superframe.
	Partial bool
	// Last: this is the last segment of the superframe. Never set for a single frame.
	Last bool
	// EntropyPort: the datagram left from an entropy port, so its source is not where its sender is reached. A sender sets it only for
	// a receiver that has answered a TypePortProbe: others refuse the flag.
	EntropyPort bool
	// HeaderLen is the length of the segment's headers in bytes, the Ethernet header included. 0 for a single frame.
	HeaderLen uint8
	// CsumStart is where the checksum begins, in bytes from the start of the frame; 0 unless Partial.
	CsumStart uint8
	// CsumOffset is the offset of the checksum field, in bytes from CsumStart; 0 unless Partial.
	CsumOffset uint8
	// SegmentSize is the payload in bytes of every segment except the last, which may be shorter; 0 for a single frame.
	SegmentSize uint16
	// Index is the position of this segment in its superframe, from 0. It has 16 bits, as 64 KiB with a small MSS have
	// more than 255.
	Index uint16
}

// ParseMeta reads the metadata at the start of b and returns the frame that follows it in b. It checks every field
// against the others and against the length of the frame, so that the caller need not check bounds. The errors are
// ErrShort and ErrMeta, unwrapped.
func ParseMeta(b []byte) (m Meta, frame []byte, err error) {
	if len(b) < MetaLen {
		return Meta{}, nil, ErrShort
	}
	frame = b[MetaLen:]
	if binary.NativeEndian.Uint64(b) == 0 {
		return Meta{}, frame, nil // a plain frame, as nearly all single frames are
	}
	if b[0]&maskReserved != 0 {
		return Meta{}, nil, ErrMeta
	}
	m = Meta{
		Kind:        Kind(b[0] & maskKind),
		ECN:         b[0]&flagECN != 0,
		Partial:     b[0]&flagPartial != 0,
		Last:        b[0]&flagLast != 0,
		EntropyPort: b[0]&flagEntropy != 0,
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

// Put writes m to the first MetaLen bytes of b; b must not be shorter.
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
	if m.EntropyPort {
		b[0] |= flagEntropy
	}
	b[1], b[2], b[3] = m.HeaderLen, m.CsumStart, m.CsumOffset
	binary.BigEndian.PutUint16(b[4:], m.SegmentSize)
	binary.BigEndian.PutUint16(b[6:], m.Index)
}

// Locates reports whether a datagram of type t with an opened body left from the data port of its sender, where that is reached, and not
// from an entropy port.
func Locates(t Type, body []byte) bool {
	switch t {
	case TypePortProbe:
		return false
	case TypeFrame, TypePlain:
		return !FromEntropyPort(body)
	default:
		return true
	}
}

// FromEntropyPort reports whether the metadata at the start of b has Meta.EntropyPort set.
func FromEntropyPort(b []byte) bool { return len(b) >= MetaLen && b[0]&flagEntropy != 0 }

// IsPlain reports whether the frame is a single one with complete checksums.
func (m Meta) IsPlain() bool { return m == Meta{} }

// fits reports whether m is consistent, and valid for a frame of n bytes.
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
		return m.fitsSegment(n)
	case KindUDP:
		return !m.ECN && m.fitsSegment(n)
	default:
		return false
	}
}

// fitsSegment reports whether m is valid for a segment of n bytes.
func (m Meta) fitsSegment(n int) bool {
	payload := n - int(m.HeaderLen)
	switch {
	case !m.Partial, int(m.CsumStart)+int(m.CsumOffset)+2 > int(m.HeaderLen):
		return false // the checksum of a superframe lies in its headers, and is partial
	case payload <= 0, payload > int(m.SegmentSize):
		return false
	case payload < int(m.SegmentSize) && !m.Last:
		return false
	}
	return int(m.Index)*int(m.SegmentSize)+payload <= maxSuperframe
}
