package virtio_test

import (
	"bytes"
	"slices"
	"testing"

	"weft/tap/virtio"
)

// guard surrounds every buffer that fuzzed code may write to.
var guard = bytes.Repeat([]byte{0xa5}, 32)

// guarded returns a copy of b with guards before and behind, within its capacity.
func guarded(b []byte) (copied, all []byte) {
	all = slices.Concat(guard, b, guard)
	return all[len(guard) : len(guard)+len(b)], all
}

func checkGuards(t *testing.T, all []byte) {
	t.Helper()
	if !bytes.Equal(all[:len(guard)], guard) || !bytes.Equal(all[len(all)-len(guard):], guard) {
		t.Fatal("written outside of a frame")
	}
}

func seeds() (out [][]byte) {
	for _, p := range []packet{
		tcp4(200),
		tcp4(200).with(func(p *packet) { p.udp, p.tags = true, []uint16{0x8100} }),
		tcp4(200).with(func(p *packet) { p.ipv6, p.extension, p.tcpOption = true, []uint8{0, 60}, make([]byte, 12) }),
		tcp4(200).with(func(p *packet) { p.ipv6, p.udp, p.flags = true, true, cwr }),
	} {
		h, frame := p.superframe(64)
		b := make([]byte, virtio.HeaderLen)
		h.Put(b)
		out = append(out, append(b, frame...))
	}
	return out
}

// FuzzInspect: an accepted frame can be cut, its headers segmented, and inspected again, within bounds and without a
// change.
func FuzzInspect(f *testing.F) {
	for _, b := range seeds() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, frame, err := virtio.Parse(b)
		if err != nil {
			return
		}
		frame, all := guarded(frame)
		if virtio.CheckSingle(h, frame) == nil {
			single, around := guarded(frame)
			virtio.CompleteChecksum(h, single)
			checkGuards(t, around)
		}
		l, err := virtio.Inspect(h, frame)
		if err != nil {
			return
		}
		total := 0
		for i := range l.Segments {
			total += len(l.Segment(frame, i))
		}
		if total != l.Payload || l.HeaderLen+total != len(frame) {
			t.Fatalf("%+v: segments of %d bytes in a frame of %d", l, total, len(frame))
		}
		for _, i := range []int{0, l.Segments / 2, l.Segments - 1} {
			run, around := guarded(slices.Concat(frame[:l.HeaderLen], l.Segment(frame, i)))
			l.SegmentHeaders(run, i, len(run)-l.HeaderLen, i == l.Segments-1)
			checkGuards(t, around)
			h.HdrLen = 0
			if m, err := virtio.Inspect(h, run); err != nil || m.Segments != 1 {
				t.Fatalf("segment %d: %+v, %v", i, m, err)
			}
			if cut := l.Cut(nil, frame, i); len(cut) != len(run) {
				t.Fatalf("segment %d has %d bytes, want %d", i, len(cut), len(run))
			}
		}
		if !bytes.Equal(frame, b[virtio.HeaderLen:]) {
			t.Fatal("the superframe was changed")
		}
		checkGuards(t, all)
	})
}

// script is the encoded content of a fuzzed batch.
type script struct{ b []byte }

func (s *script) byte() (v byte) {
	if len(s.b) > 0 {
		v, s.b = s.b[0], s.b[1:]
	}
	return v
}

func (s *script) word() int { return int(s.byte())<<8 | int(s.byte()) }

func (s *script) bytes() []byte {
	n := min(s.word(), len(s.b))
	b := s.b[:n]
	s.b = s.b[n:]
	return b
}

// Operations of a script.
const (
	opFrame = iota
	opSegment
	opCount
)

// feed runs the next operation of s, and appends the buffers that it made to buffers.
func (s *script) feed(j *virtio.Coalescer, buffers *[][]byte) error {
	op := s.byte() % opCount
	if op == opFrame {
		h := virtio.Header{Flags: s.byte(), CsumStart: uint16(s.word()), CsumOffset: uint16(s.byte())}
		data, all := guarded(s.bytes())
		*buffers = append(*buffers, all)
		return j.AddFrame(h, data)
	}
	m := virtio.SegmentInfo{
		Super: uint64(s.byte()), Type: virtio.GSOType(s.byte()), HeaderLen: int(s.byte()), CsumStart: int(s.byte()),
		CsumOffset: int(s.byte()), SegmentSize: s.word(), Index: s.word(),
	}
	bits := s.byte()
	m.ECN, m.Last = bits&1 != 0, bits&2 != 0
	data, all := guarded(s.bytes())
	*buffers = append(*buffers, all)
	return j.AddSegment(uint32(bits>>2), m, data)
}

// appendSegment appends to b the operation that adds m.
func appendSegment(b []byte, m virtio.SegmentInfo, data []byte) []byte {
	b = append(b, opSegment, byte(m.Super), byte(m.Type), byte(m.HeaderLen), byte(m.CsumStart), byte(m.CsumOffset))
	b = be.AppendUint16(b, uint16(m.SegmentSize))
	b = be.AppendUint16(b, uint16(m.Index))
	bits := byte(0)
	if m.ECN {
		bits |= 1
	}
	if m.Last {
		bits |= 2
	}
	b = append(b, bits)
	b = be.AppendUint16(b, uint16(len(data)))
	return append(b, data...)
}

// FuzzCoalescer: whatever the metadata and bytes, the Coalescer never writes outside of its buffers, and the kernel
// accepts every frame from it.
func FuzzCoalescer(f *testing.F) {
	for _, b := range seeds() {
		h, frame, _ := virtio.Parse(b)
		var segments, frames []byte
		for _, s := range split(f, 1, h, frame) {
			segments = appendSegment(segments, s.meta, s.data)
		}
		for _, wire := range segment(h, frame) {
			frames = append(frames, opFrame, 0, 0, 0, 0)
			frames = be.AppendUint16(frames, uint16(len(wire)))
			frames = append(frames, wire...)
		}
		f.Add(uint8(15), segments)
		f.Add(uint8(1), segments)
		f.Add(uint8(15), frames)
		f.Add(uint8(15), slices.Concat(frames, segments, frames))
	}
	f.Fuzz(func(t *testing.T, features uint8, b []byte) {
		offers := virtio.Features(features & 15)
		j := virtio.NewCoalescer(offers, 40, 40)
		s := script{b}
		for range 2 {
			j.Reset()
			var buffers [][]byte
			added, bytes := 0, 0
			for len(s.b) > 0 && !j.Full() {
				if s.feed(j, &buffers) == nil {
					added++
					bytes += len(buffers[len(buffers)-1])
				}
			}
			segments, out := 0, 0
			for _, frame := range j.Frames() {
				checkFrame(t, offers, frame)
				segments += 1 + len(frame.More)
				out += frame.Len()
			}
			if segments != added || out > bytes {
				t.Fatalf("%d added, %d came out; %d bytes of %d", added, segments, out, bytes)
			}
			for _, all := range buffers {
				checkGuards(t, all)
			}
		}
	})
}
