package virtio_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"weft/tap/virtio"
)

const allFeatures = virtio.FeatureChecksum | virtio.FeatureTSO4 | virtio.FeatureTSO6 | virtio.FeatureUSO

// datagram is one segment of a superframe as it arrives.
type datagram struct {
	source uint32
	meta   virtio.SegmentInfo
	data   []byte
	want   []byte // the frame that it stands for
	flow   flow
}

// flow identifies a flow of the tests: IP version, protocol, source port.
type flow struct {
	version, protocol uint8
	port              uint16
}

// split cuts a superframe into segments as a sender does, with the unchanged headers before each payload.
func split(t fataler, super uint64, h virtio.Header, frame []byte) (out []datagram) {
	t.Helper()
	l, err := virtio.Inspect(h, frame)
	if err != nil {
		t.Fatalf("superframe refused: %v", err)
	}
	wire := segment(h, frame)
	for i := range l.Segments {
		out = append(out, datagram{
			source: uint32(super % 3),
			meta: virtio.SegmentInfo{
				Super: super, Type: l.Type, ECN: l.ECN, HeaderLen: l.HeaderLen, CsumStart: l.L4, CsumOffset: l.CsumOffset,
				SegmentSize: l.SegmentSize, Index: i, Last: i == l.Segments-1,
			},
			data: slices.Concat(frame[:l.HeaderLen], l.Segment(frame, i)),
			want: wire[i],
			flow: flowOf(wire[i]),
		})
	}
	return out
}

// wireOf returns the frames that the kernel makes from frames, by flow. It checks that the kernel accepts each of them,
// and that none needs a feature that is not in f.
func wireOf(t fataler, f virtio.Features, frames []virtio.Frame) map[flow][][]byte {
	t.Helper()
	out := make(map[flow][][]byte)
	for _, frame := range frames {
		b := flatten(frame)
		checkFrame(t, f, frame)
		if h := frame.Offload; h.GSOType&virtio.GSOECN != 0 && b[h.CsumStart+13]&cwr == 0 {
			t.Fatalf("%+v, but CWR is not set", h)
		}
		for _, one := range segment(frame.Offload, b) {
			out[flowOf(one)] = append(out[flowOf(one)], one)
		}
	}
	return out
}

// checkFrame checks the invariants of a frame from a Coalescer.
func checkFrame(t fataler, f virtio.Features, frame virtio.Frame) {
	t.Helper()
	h, b := frame.Offload, flatten(frame)
	if len(frame.More) > virtio.MaxPieces {
		t.Fatalf("%d pieces", len(frame.More))
	}
	if h.GSOType == virtio.GSONone {
		if err := virtio.CheckSingle(h, b); err != nil {
			t.Fatalf("%+v, %x: %v", h, b, err)
		}
		if h != (virtio.Header{}) && !f.Has(virtio.FeatureChecksum) {
			t.Fatalf("%+v for a device without checksums", h)
		}
		return
	}
	l, err := virtio.Inspect(h, b)
	if err != nil {
		t.Fatalf("%+v, %x: %v", h, b, err)
	}
	if int(h.HdrLen) != l.HeaderLen || len(frame.Data) < l.HeaderLen || l.Segments < 2 {
		t.Fatalf("%+v of %d segments, %d bytes in the first piece", h, l.Segments, len(frame.Data))
	}
	feature := map[virtio.GSOType]virtio.Features{
		virtio.GSOTCPv4: virtio.FeatureTSO4, virtio.GSOTCPv6: virtio.FeatureTSO6, virtio.GSOUDPL4: virtio.FeatureUSO,
	}
	if !f.Has(feature[l.Type] | virtio.FeatureChecksum) {
		t.Fatalf("%+v for a device that offers %b", h, f)
	}
}

// flowOf returns the flow of frame.
func flowOf(frame []byte) flow {
	at := networkStart(frame)
	if frame[at]>>4 == 4 {
		return flow{4, frame[at+9], be.Uint16(frame[at+int(frame[at]&15)*4:])}
	}
	next := frame[at+6]
	at += 40
	for next != 6 && next != 17 {
		next, at = frame[at], at+8*(1+int(frame[at+1]))
	}
	return flow{6, next, be.Uint16(frame[at:])}
}

// coalesce adds segments to a new Coalescer and returns its frames.
func coalesce(t fataler, f virtio.Features, in []datagram) []virtio.Frame {
	t.Helper()
	j := virtio.NewCoalescer(f, len(in)+1, len(in)+1)
	for _, s := range in {
		if err := j.AddSegment(s.source, s.meta, s.data); err != nil {
			t.Fatalf("%+v: %v", s.meta, err)
		}
	}
	return j.Frames()
}

// TestReassembleWhole: a superframe that arrives completely results in the same superframe.
func TestReassembleWhole(t *testing.T) {
	for _, p := range []packet{
		tcp4(65495),
		tcp4(3000).with(func(p *packet) { p.ipv6, p.flags = true, ack|psh|cwr }),
		tcp4(3000).with(func(p *packet) { p.udp, p.tags = true, []uint16{0x8100} }),
		tcp4(1000),
	} {
		h, frame := p.superframe(1398)
		frames := coalesce(t, allFeatures, split(t, 7, h, frame))
		if len(frames) != 1 {
			t.Fatalf("%d frames", len(frames))
		}
		if !slices.Equal(flatten(frames[0]), frame) {
			t.Error("the superframe was changed")
		}
		got := frames[0].Offload
		h.HdrLen = got.HdrLen
		if len(p.payload) <= 1398 {
			h.GSOType, h.GSOSize = virtio.GSONone, 0 // one segment is a single frame
		}
		if got != h {
			t.Errorf("header %+v, want %+v", got, h)
		}
	}
}

// TestReassemble: after split, loss of any subset, coalescing and segmentation by the kernel, the frames are byte for
// byte those that the sender's kernel would have sent, in order within each flow.
func TestReassemble(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := virtio.Features(rapid.IntRange(0, 15).Draw(t, "features"))
		var queues [][]datagram // a superframe each
		for i := range rapid.IntRange(1, 4).Draw(t, "superframes") {
			p := drawPacket(t, rapid.SampledFrom([]int{1, 100, 5000, 60000}).Draw(t, "most"))
			p.srcPort = uint16(rapid.IntRange(1, 3).Draw(t, "flow"))
			h, frame := p.superframe(max(drawSize(t, p), len(p.payload)/1400))
			queues = append(queues, split(t, uint64(i), h, frame))
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0)) // there are too many choices to draw each of them
		loss := rapid.SampledFrom([]float64{0, 0.01, 0.1, 0.6}).Draw(t, "loss")
		var in []datagram
		current := 0
		for len(queues) > 0 {
			if rng.IntN(16) == 0 {
				current = rng.IntN(len(queues))
			}
			if rng.Float64() >= loss {
				in = append(in, queues[current][0])
			}
			if queues[current] = queues[current][1:]; len(queues[current]) == 0 {
				queues = slices.Delete(queues, current, current+1)
				current = 0
			}
		}
		want := make(map[flow][][]byte)
		for _, s := range in {
			want[s.flow] = append(want[s.flow], s.want)
		}
		got := wireOf(t, f, coalesce(t, f, in))
		for flow := range want {
			equalFrames(t, got[flow], want[flow])
		}
		if len(got) != len(want) {
			t.Fatalf("%d flows, want %d", len(got), len(want))
		}
	})
}

// TestReassembleShapes: the number of resulting frames.
func TestReassembleShapes(t *testing.T) {
	of := func(n, size int, change ...func(*packet)) []datagram {
		p := tcp4(n * size)
		for _, c := range change {
			p = p.with(c)
		}
		h, frame := p.superframe(size)
		return split(t, uint64(p.srcPort), h, frame)
	}
	udp := func(p *packet) { p.udp = true }
	other := func(p *packet) { p.srcPort++ }
	a, b := of(8, 1000), of(8, 1000, other)
	interleaved := slices.Concat(a[:2], b[:3], a[2:5], b[3:], a[5:])
	for _, tt := range []struct {
		name string
		f    virtio.Features
		in   []datagram
		want int
	}{
		{"whole", allFeatures, a, 1},
		{"first lost", allFeatures, a[1:], 1},
		{"last lost", allFeatures, a[:7], 1},
		{"one lost in the middle", allFeatures, slices.Concat(a[:3], a[4:]), 2},
		{"every other one lost", allFeatures, []datagram{a[0], a[2], a[4], a[6]}, 4},
		{"twice", allFeatures, slices.Concat(a, a), 2},
		{"reversed", allFeatures, []datagram{a[3], a[2], a[1], a[0]}, 4},
		{"two flows, interleaved", allFeatures, interleaved, 2},
		{"no TSO", virtio.FeatureChecksum | virtio.FeatureUSO, a, 8},
		{"nothing", 0, a, 8},
		{"TSO without checksums", virtio.FeatureTSO4, a, 8},
		{"UDP", allFeatures, of(8, 1000, udp), 1},
		{"UDP without USO", allFeatures &^ virtio.FeatureUSO, of(8, 1000, udp), 8},
		{"128 UDP datagrams", allFeatures, of(128, 100, udp), 2},
		{"more pieces than a write takes", allFeatures, of(1300, 50), 3},
	} {
		in := make([]datagram, 0, len(tt.in))
		for _, s := range tt.in {
			s.data = slices.Clone(s.data) // headers are rewritten in place
			in = append(in, s)
		}
		frames := coalesce(t, tt.f, in)
		if len(frames) != tt.want {
			t.Errorf("%s: %d frames, want %d", tt.name, len(frames), tt.want)
		}
		wireOf(t, tt.f, frames)
	}
}

func TestAddSegmentRefuses(t *testing.T) {
	h, frame := tcp4(3500).superframe(1000)
	good := split(t, 1, h, frame)
	for _, tt := range []struct {
		name   string
		of     int
		change func(s *datagram)
		want   error
	}{
		{"type", 0, func(s *datagram) { s.meta.Type = virtio.GSOTCPv6 }, virtio.ErrGSO},
		{"no type", 0, func(s *datagram) { s.meta.Type = 0 }, virtio.ErrGSO},
		{"segment size 0", 0, func(s *datagram) { s.meta.SegmentSize = 0 }, virtio.ErrGSO},
		{"negative segment size", 0, func(s *datagram) { s.meta.SegmentSize = -1 }, virtio.ErrGSO},
		{"segment size", 0, func(s *datagram) { s.meta.SegmentSize = 999 }, virtio.ErrLength},
		{"header length beyond the end", 0, func(s *datagram) { s.meta.HeaderLen = 1055 }, virtio.ErrTruncated},
		{"negative header length", 0, func(s *datagram) { s.meta.HeaderLen = -1 }, virtio.ErrTruncated},
		{"header length too short", 0, func(s *datagram) { s.meta.HeaderLen = 53 }, virtio.ErrTruncated},
		{"header length too long", 0, func(s *datagram) { s.meta.HeaderLen = 55 }, virtio.ErrSegment},
		{"checksum start", 0, func(s *datagram) { s.meta.CsumStart++ }, virtio.ErrChecksum},
		{"checksum offset", 0, func(s *datagram) { s.meta.CsumOffset = 6 }, virtio.ErrChecksum},
		{"negative index", 0, func(s *datagram) { s.meta.Index = -1 }, virtio.ErrSegment},
		{"index beyond the end", 3, func(s *datagram) { s.meta.Index = 4 }, virtio.ErrSegment},
		{"declared last, but is not", 2, func(s *datagram) { s.meta.Last = true }, virtio.ErrSegment},
		{"last, but not declared", 3, func(s *datagram) { s.meta.Last = false }, virtio.ErrSegment},
		{"payload cut short", 1, func(s *datagram) { s.data = s.data[:500] }, virtio.ErrLength},
		{"more payload", 1, func(s *datagram) { s.data = append(s.data, 0) }, virtio.ErrLength},
		{"last with too much", 3, func(s *datagram) { s.data = append(s.data, 0) }, virtio.ErrLength},
		{"SYN", 0, func(s *datagram) { s.data[47] |= syn }, virtio.ErrFlags},
		{"fragment", 0, func(s *datagram) { s.data[20] = 0x20 }, virtio.ErrFragment},
		{"nothing", 0, func(s *datagram) { *s = datagram{} }, virtio.ErrTruncated},
	} {
		bad := good[tt.of]
		bad.data = slices.Clone(bad.data)
		tt.change(&bad)
		// Alone, and as the continuation of a run, which has other checks.
		for _, before := range [][]datagram{nil, good[:tt.of]} {
			j := virtio.NewCoalescer(allFeatures, 8, 8)
			for _, s := range before {
				if err := j.AddSegment(s.source, s.meta, slices.Clone(s.data)); err != nil {
					t.Fatal(err)
				}
			}
			if err := j.AddSegment(bad.source, bad.meta, bad.data); !errors.Is(err, tt.want) {
				t.Errorf("%s, behind %d: %v, want %v", tt.name, len(before), err, tt.want)
			}
		}
	}
}

// TestOtherHeaders: a segment with other headers than those of the run before it is not added to the run.
func TestOtherHeaders(t *testing.T) {
	h, frame := tcp4(3000).superframe(1000)
	for at := range 54 {
		in := split(t, 1, h, frame)
		in[1].data[at] ^= 4
		j := virtio.NewCoalescer(allFeatures, 8, 8)
		for _, s := range in[:2] {
			if err := j.AddSegment(s.source, s.meta, s.data); err != nil && at < 12 {
				t.Fatal(err)
			}
		}
		for _, f := range j.Frames() {
			if len(f.More) > 0 {
				t.Errorf("byte %d differs, and is joined", at)
			}
		}
	}
}

func TestFull(t *testing.T) {
	h, frame := tcp4(8000).superframe(1000)
	in := split(t, 1, h, frame)
	for _, tt := range []struct{ frames, pieces, want int }{{1, 9, 1}, {2, 3, 4}, {0, 4, 0}, {4, 0, 0}} {
		j := virtio.NewCoalescer(allFeatures, tt.frames, tt.pieces)
		for round := range 2 {
			n := 0
			for ; !j.Full(); n++ {
				if err := j.AddSegment(1, in[n].meta, slices.Clone(in[n].data)); err != nil {
					t.Fatal(err)
				}
			}
			if n != tt.want {
				t.Errorf("%d frames, %d pieces: %d slices in round %d, want %d", tt.frames, tt.pieces, n, round, tt.want)
			}
			if err := j.AddSegment(1, in[n].meta, in[n].data); !errors.Is(err, virtio.ErrFull) {
				t.Errorf("segment into a full one: %v", err)
			}
			if err := j.AddFrame(virtio.Header{}, make([]byte, 60)); !errors.Is(err, virtio.ErrFull) {
				t.Errorf("frame into a full one: %v", err)
			}
			wireOf(t, allFeatures, j.Frames())
			j.Reset()
		}
	}
}

// TestFramesTwice: a second call of Frames has the same result, and nothing can be added before it.
func TestFramesTwice(t *testing.T) {
	h, frame := tcp4(3000).superframe(1000)
	in := split(t, 1, h, frame)
	j := virtio.NewCoalescer(allFeatures, 8, 8)
	if err := j.AddSegment(1, in[1].meta, in[1].data); err != nil {
		t.Fatal(err)
	}
	first := flatten(j.Frames()[0])
	if err := j.AddSegment(1, in[2].meta, in[2].data); !errors.Is(err, virtio.ErrFull) || !j.Full() {
		t.Errorf("segment behind Frames: %v", err)
	}
	if !slices.Equal(flatten(j.Frames()[0]), first) {
		t.Error("the second Frames differs")
	}
}

// TestManyFlows: whatever the number of flows, each stays in order.
func TestManyFlows(t *testing.T) {
	var in []datagram
	for port := range uint16(400) {
		h, frame := tcp4(2000).with(func(p *packet) { p.srcPort = port }).superframe(1000)
		in = append(in, split(t, uint64(port), h, frame)...)
	}
	slices.SortStableFunc(in, func(a, b datagram) int { return a.meta.Index - b.meta.Index })
	want := make(map[flow][][]byte)
	for _, s := range in {
		want[s.flow] = append(want[s.flow], s.want)
	}
	got := wireOf(t, allFeatures, coalesce(t, allFeatures, in))
	for flow := range want {
		equalFrames(t, got[flow], want[flow])
	}
}
