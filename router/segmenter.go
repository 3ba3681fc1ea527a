package router

import (
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap/virtio"
)

// Sizes of a segmenter. A superframe of the smallest segments that Linux makes (48 bytes) needs half of each.
const (
	segmenterHeads  = 256 << 10 // bytes
	segmenterPieces = 4096
)

// segmenter makes plain datagrams of superframes: each segment gets the wire header, its metadata and a copy of the
// superframe's headers; the payload stays where it is. The datagrams are valid until reset.
type segmenter struct {
	heads  []byte   // of the segments, one after the other
	pieces [][]byte // payload, head, payload, ...: what follows the first head of a superframe
	used   int      // of heads
}

func newSegmenter() segmenter {
	return segmenter{heads: make([]byte, segmenterHeads), pieces: make([][]byte, 0, segmenterPieces)}
}

// reset releases all the memory.
func (s *segmenter) reset() { s.used, s.pieces = 0, s.pieces[:0] }

// fits reports whether there is room for a number of segments with headers of a length in bytes. After reset there is
// room for any superframe that fitsWire accepts.
func (s *segmenter) fits(segments, headers int) bool {
	return s.used+segments*(wire.Headroom+headers) <= len(s.heads) && len(s.pieces)+2*segments <= cap(s.pieces)
}

// segment returns the datagrams of f, without an address. The first one has the counter first, the others the counters
// that follow.
func (s *segmenter) segment(f *outgoing, by *session.Session, first uint64) underlay.Datagram {
	l := &f.layout
	meta := metaOf(l)
	length := wire.Headroom + l.HeaderLen
	heads := s.heads[s.used : s.used+l.Segments*length]
	s.used += len(heads)
	from := len(s.pieces)
	for i := range l.Segments {
		head := heads[i*length : (i+1)*length : (i+1)*length]
		meta.Index, meta.Last = uint16(i), i == l.Segments-1
		putHead(head, by, first+uint64(i), meta)
		copy(head[wire.Headroom:], f.Data[:l.HeaderLen])
		if i > 0 {
			s.pieces = append(s.pieces, head)
		}
		s.pieces = append(s.pieces, l.Segment(f.Data, i))
	}
	return underlay.Datagram{
		Buf: heads[:length:length], More: s.pieces[from:len(s.pieces):len(s.pieces)], SegmentSize: length + l.SegmentSize,
	}
}

// whole returns the datagram of a frame that stays unchanged and in place, without an address.
func (s *segmenter) whole(f *outgoing, by *session.Session, counter uint64) underlay.Datagram {
	head := s.heads[s.used : s.used+wire.Headroom : s.used+wire.Headroom]
	s.used += len(head)
	putHead(head, by, counter, f.meta())
	from := len(s.pieces)
	s.pieces = append(s.pieces, f.Data)
	return underlay.Datagram{Buf: head, More: s.pieces[from:len(s.pieces):len(s.pieces)]}
}

// fitsWire reports whether the metadata of segments can express the length of the headers of l.
func fitsWire(l *virtio.Layout) bool {
	return l.HeaderLen <= wire.MaxOffset && l.Segments*(wire.Headroom+l.HeaderLen) <= segmenterHeads && 2*l.Segments <= segmenterPieces
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
