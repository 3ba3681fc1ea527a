package router

import (
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap/virtio"
)

// Sizes of a slicer. A superframe of the smallest segments that Linux makes (48 bytes) needs half of each.
const (
	slicerHeads  = 256 << 10 // bytes
	slicerPieces = 4096
)

// slicer makes datagrams of superframes: each slice gets the wire header, its metadata and a copy of the superframe's
// own headers; the payload stays where it is. What it made is valid until reset.
type slicer struct {
	heads  []byte   // of the slices, one behind the other
	pieces [][]byte // payload, head, payload, ...: what follows the first head of a superframe
	used   int      // of heads
}

func newSlicer() slicer {
	return slicer{heads: make([]byte, slicerHeads), pieces: make([][]byte, 0, slicerPieces)}
}

// reset gives all the memory free.
func (s *slicer) reset() { s.used, s.pieces = 0, s.pieces[:0] }

// fits reports whether there is room for so many slices with headers of so many bytes. After reset there is room for
// those of any superframe that fitsWire lets pass.
func (s *slicer) fits(slices, headers int) bool {
	return s.used+slices*(wire.Headroom+headers) <= len(s.heads) && len(s.pieces)+2*slices <= cap(s.pieces)
}

// slice returns the datagrams of f, without an address. The first has the counter first, the others those that follow.
func (s *slicer) slice(f *outgoing, by *session.Session, first uint64) underlay.Datagram {
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

// whole returns the datagram of a frame that stays as it is and where it is, without an address.
func (s *slicer) whole(f *outgoing, by *session.Session, counter uint64) underlay.Datagram {
	head := s.heads[s.used : s.used+wire.Headroom : s.used+wire.Headroom]
	s.used += len(head)
	putHead(head, by, counter, f.meta())
	from := len(s.pieces)
	s.pieces = append(s.pieces, f.Data)
	return underlay.Datagram{Buf: head, More: s.pieces[from:len(s.pieces):len(s.pieces)]}
}

// fitsWire reports whether slices of l can say where its headers end.
func fitsWire(l *virtio.Layout) bool {
	return l.HeaderLen <= wire.MaxOffset && l.Segments*(wire.Headroom+l.HeaderLen) <= slicerHeads && 2*l.Segments <= slicerPieces
}

// kindOf returns the wire's word for a kind of superframe that virtio.Inspect has let through.
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

// typeOf returns the kernel's word for a kind of superframe; GSONone for none.
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
