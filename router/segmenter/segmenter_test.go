package segmenter

import (
	"bytes"
	"slices"
	"testing"

	"weft/router/session"
	"weft/router/wire"
	"weft/tap/virtio"
)

// superframe returns the layout and the bytes of a superframe with headers of 66 bytes.
func superframe(kind virtio.GSOType, payload, size int) (*virtio.Layout, []byte) {
	const headers = 66
	data := make([]byte, headers+payload)
	for i := range data {
		data[i] = byte(i * 7)
	}
	return &virtio.Layout{
		Type: kind, HeaderLen: headers, L4: 34, CsumOffset: 16, SegmentSize: size, Payload: payload, Segments: (payload + size - 1) / size,
	}, data
}

// TestSegment: each datagram has the headers of the superframe and its part of the payload, which is not copied, and its metadata can be
// converted back.
func TestSegment(t *testing.T) {
	for _, kind := range []virtio.GSOType{virtio.GSOTCPv4, virtio.GSOTCPv6, virtio.GSOUDPL4} {
		s, by := Segmenter{}, new(session.Session)
		l, data := superframe(kind, 2500, 1000)
		d := s.Segment(l, data, by, 100, true)
		whole := slices.Concat(append([][]byte{d.Head}, d.More...)...)
		i := 0
		for datagram := range slices.Chunk(whole, d.Size) {
			h, rest, err := wire.Parse(datagram)
			if err != nil || h.Type != wire.TypePlain || h.Counter != uint64(100+i) {
				t.Fatalf("segment %d: header %+v, %v", i, h, err)
			}
			m, frame, err := wire.ParseMeta(rest)
			if err != nil {
				t.Fatalf("segment %d: %v", i, err)
			}
			if want := slices.Concat(data[:l.HeaderLen], l.Segment(data, i)); !bytes.Equal(frame, want) {
				t.Errorf("segment %d differs", i)
			}
			if !m.EntropyPort {
				t.Errorf("segment %d does not have the mark", i)
			}
			info := InfoOf(h, m)
			if info.Super != 100 || info.Type != kind || info.Index != i || info.Last != (i == 2) || info.SegmentSize != 1000 {
				t.Errorf("segment %d: %+v", i, info)
			}
			i++
		}
		if i != 3 || &d.More[0][0] != &data[l.HeaderLen] {
			t.Errorf("%d segments, or the payload was copied", i)
		}
	}
}

func TestWhole(t *testing.T) {
	s := Segmenter{}
	frame := make([]byte, 60)
	d := s.Whole(frame, wire.Meta{}, new(session.Session), 7)
	if len(d.Head) != wire.Headroom || len(d.More) != 1 || &d.More[0][0] != &frame[0] || d.Size != 0 {
		t.Errorf("%d bytes of headers, %d pieces, size %d", len(d.Head), len(d.More), d.Size)
	}
}

// TestFits: after Reset there is room for any superframe that FitsWire accepts, and Fits reports when there is none.
func TestFits(t *testing.T) {
	s, by := Segmenter{}, new(session.Session)
	l, data := superframe(virtio.GSOTCPv4, 2000*30, 30)
	for range 3 {
		if !FitsWire(l) || !s.Fits(l.Segments, l.HeaderLen) {
			t.Fatal("no room")
		}
		s.Segment(l, data, by, 0, false)
		if s.Fits(l.Segments, l.HeaderLen) {
			t.Error("room for a second one")
		}
		s.Reset()
	}
	l.HeaderLen = wire.MaxOffset + 1
	if FitsWire(l) {
		t.Error("headers that the metadata cannot describe")
	}
}
