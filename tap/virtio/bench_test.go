package virtio_test

import (
	"slices"
	"testing"

	"weft/tap/virtio"
)

const benchMSS = 1398

// must fails t where err is not nil.
func must(t fataler, err error) {
	if err != nil {
		t.Fatalf("%v", err)
	}
}

// benchSuperframe returns 64 KiB of TCP.
func benchSuperframe() (virtio.Header, []byte) {
	return tcp4(65483).with(func(p *packet) { p.tcpOption = make([]byte, 12) }).superframe(benchMSS)
}

func TestNoAllocation(t *testing.T) {
	h, frame := benchSuperframe()
	in := split(t, 1, h, frame)
	single := stream(tcp4(0), 40, 1000, false)
	datagrams := stream(tcp4(0).with(func(p *packet) { p.udp = true }), 40, 1000, true)
	for _, features := range []virtio.Features{0, virtio.FeatureChecksum, allFeatures} {
		j := virtio.NewCoalescer(features, 200, 200)
		dst := make([]byte, 0, 2000)
		if n := testing.AllocsPerRun(20, func() {
			l, err := virtio.Inspect(h, frame)
			must(t, err)
			if _, err := virtio.Inspect(h, frame[:100]); err == nil {
				t.Fatal("accepted")
			}
			l.Cut(dst, frame, 3)
			j.Reset()
			for i := range in {
				copy(in[i].data[:66], frame) // restores the headers, which the last round rewrote in place
				must(t, j.AddSegment(1, in[i].meta, in[i].data))
			}
			for i := range single {
				must(t, j.AddFrame(single[i].h, single[i].data))
				must(t, j.AddFrame(datagrams[i].h, datagrams[i].data))
			}
			j.Frames()
		}); n != 0 {
			t.Errorf("features %b: %v allocations", features, n)
		}
	}
}

func BenchmarkInspect(b *testing.B) {
	h, frame := benchSuperframe()
	b.ReportAllocs()
	for b.Loop() {
		_, err := virtio.Inspect(h, frame)
		must(b, err)
	}
}

// BenchmarkSegment is the work of the sender: it cuts 64 KiB into 47 segments, and writes the headers before each
// payload.
func BenchmarkSegment(b *testing.B) {
	h, frame := benchSuperframe()
	out := make([]byte, 128)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		l, err := virtio.Inspect(h, frame)
		must(b, err)
		for i := range l.Segments {
			copy(out, frame[:l.HeaderLen])
			if len(l.Segment(frame, i)) == 0 {
				b.Fatal("empty")
			}
		}
	}
}

func benchReassemble(b *testing.B, drop int) {
	h, frame := benchSuperframe()
	in := split(b, 1, h, frame)
	headers := slices.Clone(in[0].data[:100])
	j := virtio.NewCoalescer(allFeatures, 256, 256)
	b.SetBytes(int64(len(frame)))
	b.ReportAllocs()
	for b.Loop() {
		j.Reset()
		for i := range in {
			if i == drop {
				continue
			}
			if i == drop+1 {
				copy(in[i].data[:66], headers) // restores the headers of the first one, which are rewritten in place
			}
			must(b, j.AddSegment(1, in[i].meta, in[i].data))
		}
		copy(in[0].data[:66], headers)
		if n := len(j.Frames()); n > 2 {
			b.Fatal(n)
		}
		copy(in[0].data[:66], headers)
	}
}

func BenchmarkReassemble(b *testing.B) {
	b.Run("whole", func(b *testing.B) { benchReassemble(b, -1) })
	b.Run("one lost", func(b *testing.B) { benchReassemble(b, 20) })
}

// benchCoalesce merges frames of 64 KiB in total. It restores their headers each time, as they are rewritten in place.
func benchCoalesce(b *testing.B, p packet, n, size int, partial bool) {
	in := stream(p, n, size, partial)
	const headers = 54
	heads := clone(in)
	j := virtio.NewCoalescer(allFeatures, 256, 2048)
	b.SetBytes(int64(n * size))
	b.ReportAllocs()
	for b.Loop() {
		j.Reset()
		for i := range in {
			copy(in[i].data[:headers], heads[i].data)
			must(b, j.AddFrame(in[i].h, in[i].data))
		}
		if frames := len(j.Frames()); frames > n/30 {
			b.Fatal(frames)
		}
	}
}

func BenchmarkCoalesceTCP(b *testing.B) {
	p := tcp4(0)
	b.Run("complete", func(b *testing.B) { benchCoalesce(b, p, 46, 1400, false) })
	b.Run("partial", func(b *testing.B) { benchCoalesce(b, p, 46, 1400, true) })
}

func BenchmarkCoalesceUDP(b *testing.B) {
	p := tcp4(0).with(func(p *packet) { p.udp = true })
	b.Run("complete", func(b *testing.B) { benchCoalesce(b, p, 64, 64, false) })
	b.Run("partial", func(b *testing.B) { benchCoalesce(b, p, 64, 64, true) })
}

// BenchmarkSingles is the cost of coalescing when there is nothing to merge: each frame has a flow of its own.
func BenchmarkSingles(b *testing.B) {
	var in []single
	for port := range uint16(128) {
		in = append(in, stream(tcp4(0).with(func(p *packet) { p.srcPort = port }), 1, 1000, false)...)
	}
	j := virtio.NewCoalescer(allFeatures, 256, 256)
	b.ReportAllocs()
	for b.Loop() {
		j.Reset()
		for i := range in {
			must(b, j.AddFrame(in[i].h, in[i].data))
		}
		j.Frames()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(in)), "ns/frame")
}
