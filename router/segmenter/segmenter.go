// Package segmenter makes plain datagrams of superframes: each segment gets the wire header, its metadata and a copy of the superframe's
// headers; the payload stays where it is.
//
// The package is pure: no goroutine, no clock, no lock and no I/O.
package segmenter

import (
	"weft/router/session"
	"weft/router/wire"
	"weft/tap/virtio"
)

// Sizes of a Segmenter. A superframe of the smallest segments that Linux makes (48 bytes) needs half of each.
const (
	Heads  = 256 << 10 // bytes
	Pieces = 4096
)

// Segmenter has the memory of datagrams, which are valid until Reset. It belongs to one goroutine. The zero Segmenter is ready for use.
type Segmenter struct {
	heads  []byte   // of the segments, one after the other; nil until there is one
	pieces [][]byte // payload, head, payload, ...: what follows the first head of a superframe
	used   int      // of heads
}

// Datagrams are the datagrams of a superframe in one payload: Head, and More behind it. All but the last have Size bytes; 0: there is
// one datagram.
type Datagrams struct {
	Head []byte
	More [][]byte
	Size int
}

// Reset releases all the memory.
func (s *Segmenter) Reset() { s.used, s.pieces = 0, s.pieces[:0] }

// Fits reports whether there is room for a number of segments with headers of a length in bytes. After Reset there is room for any
// superframe that FitsWire accepts.
func (s *Segmenter) Fits(segments, headers int) bool {
	return s.used+segments*(wire.Headroom+headers) <= Heads && len(s.pieces)+2*segments <= Pieces
}

// take takes n bytes for heads.
func (s *Segmenter) take(n int) []byte {
	if s.heads == nil {
		s.heads, s.pieces = make([]byte, Heads), make([][]byte, 0, Pieces)
	}
	s.used += n
	return s.heads[s.used-n : s.used : s.used]
}

// Segment returns the datagrams of the superframe data with the layout l. The first one has the counter first, the others the counters
// that follow. port says that they leave from an entropy port.
func (s *Segmenter) Segment(l *virtio.Layout, data []byte, by *session.Session, first uint64, port bool) Datagrams {
	meta := MetaOf(l, port)
	length := wire.Headroom + l.HeaderLen
	heads := s.take(l.Segments * length)
	from := len(s.pieces)
	for i := range l.Segments {
		head := heads[i*length : (i+1)*length : (i+1)*length]
		meta.Index, meta.Last = uint16(i), i == l.Segments-1
		PutHead(head, by, first+uint64(i), meta)
		copy(head[wire.Headroom:], data[:l.HeaderLen])
		if i > 0 {
			s.pieces = append(s.pieces, head)
		}
		s.pieces = append(s.pieces, l.Segment(data, i))
	}
	return Datagrams{Head: heads[:length:length], More: s.pieces[from:len(s.pieces):len(s.pieces)], Size: length + l.SegmentSize}
}

// Whole returns the datagram of a single frame that stays unchanged and in place.
func (s *Segmenter) Whole(data []byte, meta wire.Meta, by *session.Session, counter uint64) Datagrams {
	head := s.take(wire.Headroom)
	PutHead(head, by, counter, meta)
	from := len(s.pieces)
	s.pieces = append(s.pieces, data)
	return Datagrams{Head: head, More: s.pieces[from:len(s.pieces):len(s.pieces)]}
}

// PutHead writes the headers of a frame that is not sealed to the first wire.Headroom bytes of b.
func PutHead(b []byte, by *session.Session, counter uint64, m wire.Meta) {
	by.PutHeader(b, wire.TypePlain, counter)
	m.Put(b[wire.HeaderLen:])
}

// FitsWire reports whether the metadata of segments can express the length of the headers of l, and a Segmenter has room for them.
func FitsWire(l *virtio.Layout) bool {
	return l.HeaderLen <= wire.MaxOffset && l.Segments*(wire.Headroom+l.HeaderLen) <= Heads && 2*l.Segments <= Pieces
}

// MetaOf returns the metadata of the segments of l, apart from the fields that differ between segments. port says that they leave from an
// entropy port.
func MetaOf(l *virtio.Layout, port bool) wire.Meta {
	return wire.Meta{
		EntropyPort: port, Kind: kindOf(l.Type), ECN: l.ECN, Partial: true, HeaderLen: uint8(l.HeaderLen), SegmentSize: uint16(l.SegmentSize),
		CsumStart: uint8(l.L4), CsumOffset: uint8(l.CsumOffset),
	}
}

// InfoOf is the reverse of MetaOf, for a segment that was received with the header h.
func InfoOf(h wire.Header, m wire.Meta) virtio.SegmentInfo {
	return virtio.SegmentInfo{
		Super: h.Counter - uint64(m.Index), Type: typeOf(m.Kind), ECN: m.ECN, HeaderLen: int(m.HeaderLen),
		CsumStart: int(m.CsumStart), CsumOffset: int(m.CsumOffset), SegmentSize: int(m.SegmentSize),
		Index: int(m.Index), Last: m.Last,
	}
}

// kindOf returns the wire's value for a kind of superframe that virtio.Inspect has accepted.
func kindOf(t virtio.GSOType) wire.Kind {
	switch t {
	case virtio.GSOTCPv4:
		return wire.KindTCPv4
	case virtio.GSOTCPv6:
		return wire.KindTCPv6
	default:
		return wire.KindUDP
	}
}

// typeOf returns the kernel's value for a kind of superframe; GSONone for none.
func typeOf(k wire.Kind) virtio.GSOType {
	switch k {
	case wire.KindTCPv4:
		return virtio.GSOTCPv4
	case wire.KindTCPv6:
		return virtio.GSOTCPv6
	case wire.KindUDP:
		return virtio.GSOUDPL4
	default:
		return virtio.GSONone
	}
}
