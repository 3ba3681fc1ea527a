package virtio_test

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"weft/tap/virtio"
)

// single is a single frame as it arrives.
type single struct {
	h    virtio.Header
	data []byte
}

// stream returns n frames of one flow in sequence, of size bytes each, complete or partial.
func stream(p packet, n, size int, partial bool) (out []single) {
	p.payload = pattern(n * size)
	h, frame := p.superframe(size)
	for _, wire := range segment(h, frame) {
		s := single{data: wire}
		if partial {
			s.h = virtio.Header{Flags: virtio.FlagNeedsChecksum, CsumStart: h.CsumStart, CsumOffset: h.CsumOffset}
			be.PutUint16(wire[h.CsumStart+h.CsumOffset:], foldNaive(pseudoNaive(wire, networkStart(wire), int(h.CsumStart))))
		}
		out = append(out, s)
	}
	return out
}

func addAll(t fataler, f virtio.Features, in []single) []virtio.Frame {
	t.Helper()
	j := virtio.NewCoalescer(f, len(in)+1, len(in)+1)
	for _, s := range in {
		if err := j.AddFrame(s.h, s.data); err != nil {
			t.Fatalf("%+v: %v", s.h, err)
		}
	}
	return j.Frames()
}

// complete returns frames with all checksums complete, as the receiver sees them.
func complete(in []single) (out [][]byte) {
	for _, s := range in {
		out = append(out, segment(s.h, s.data)[0])
	}
	return out
}

func clone(in []single) (out []single) {
	for _, s := range in {
		out = append(out, single{s.h, slices.Clone(s.data)})
	}
	return out
}

// TestCoalesceShapes: the number of resulting frames, and that the kernel makes the same frames from them.
func TestCoalesceShapes(t *testing.T) {
	v6 := func(p *packet) { p.ipv6 = true }
	udp := func(p *packet) { p.udp = true }
	psh1 := func(p *packet) { p.flags |= psh }
	for _, tt := range []struct {
		name string
		p    packet
		n    int
		size int
		want int
	}{
		{"TCP", tcp4(0), 10, 1000, 1},
		{"TCP, PSH on the last", tcp4(0).with(psh1), 10, 1000, 1},
		{"TCP, FIN on the last", tcp4(0).with(func(p *packet) { p.flags |= fin }), 10, 1000, 1},
		{"TCP, CWR on the first", tcp4(0).with(func(p *packet) { p.flags |= cwr }), 10, 1000, 2},
		{"TCP, ECE on all", tcp4(0).with(func(p *packet) { p.flags |= ece }), 10, 1000, 1},
		{"TCP, URG", tcp4(0).with(func(p *packet) { p.flags |= urg }), 10, 1000, 10},
		{"TCP, no ACK", tcp4(0).with(func(p *packet) { p.flags = 0 }), 10, 1000, 10},
		{"TCP over IPv6", tcp4(0).with(v6), 10, 1000, 1},
		{"TCP beyond 64 KiB", tcp4(0), 70, 1000, 2},
		{"TCP, many small", tcp4(0), 1200, 10, 3},
		{"TCP with options", tcp4(0).with(func(p *packet) { p.tcpOption = make([]byte, 12) }), 10, 1000, 1},
		{"TCP with VLAN", tcp4(0).with(func(p *packet) { p.tags = []uint16{0x8100} }), 10, 1000, 1},
		{"IPv4 options", tcp4(0).with(func(p *packet) { p.ipOptions = make([]byte, 4) }), 10, 1000, 10},
		{"IPv6 extension", tcp4(0).with(v6).with(func(p *packet) { p.extension = []uint8{60} }), 10, 1000, 10},
		{"without DF", tcp4(0).with(func(p *packet) { p.df = false }), 10, 1000, 1},
		{"id wraps", tcp4(0).with(func(p *packet) { p.id = 0xfffe }), 10, 1000, 1},
		{"sequence wraps", tcp4(0).with(func(p *packet) { p.seq = 0xffffff00 }), 10, 1000, 1},
		{"UDP", tcp4(0).with(udp), 10, 1000, 1},
		{"UDP over IPv6", tcp4(0).with(udp).with(v6), 10, 1000, 1},
		{"UDP, more than 64", tcp4(0).with(udp), 100, 64, 2},
		{"UDP beyond 64 KiB", tcp4(0).with(udp), 60, 1400, 2},
	} {
		for _, partial := range []bool{false, true} {
			in := stream(tt.p, tt.n, tt.size, partial)
			want := complete(in)
			frames := addAll(t, allFeatures, in)
			if len(frames) != tt.want {
				t.Errorf("%s, partial %v: %d frames, want %d", tt.name, partial, len(frames), tt.want)
			}
			equalFrames(t, wireOf(t, allFeatures, frames)[flowOf(want[0])], want)
		}
	}
}

// TestCoalesceSecond: the fields in which the second of three frames must not differ, and what happens to the third.
func TestCoalesceSecond(t *testing.T) {
	udp := tcp4(0).with(func(p *packet) { p.udp = true })
	v6 := tcp4(0).with(func(p *packet) { p.ipv6 = true })
	fix := func(s *single) { // writes the IPv4 header's checksum, and the transport's
		at := networkStart(s.data)
		if s.data[at]>>4 == 4 {
			be.PutUint16(s.data[at+10:], 0)
			be.PutUint16(s.data[at+10:], ^foldNaive(sumNaive(s.data[at:at+20])))
		}
	}
	sum := func(s *single, l4, offset int) {
		be.PutUint16(s.data[l4+offset:], 0)
		be.PutUint16(s.data[l4+offset:], foldNaive(pseudoNaive(s.data, networkStart(s.data), l4)))
		be.PutUint16(s.data[l4+offset:], ^foldNaive(sumNaive(s.data[l4:])))
	}
	ip := func(at int, v byte) func(*single) {
		return func(s *single) { s.data[at] = v; fix(s) }
	}
	tcp := func(at int, v byte) func(*single) {
		return func(s *single) { s.data[34+at] = v; sum(s, 34, 16) }
	}
	for _, tt := range []struct {
		name   string
		p      packet
		change func(*single)
		want   int
	}{
		{"nothing", tcp4(0), func(*single) {}, 1},
		{"destination MAC", tcp4(0), ip(5, 9), 3},
		{"source MAC", tcp4(0), ip(11, 9), 3},
		{"TOS", tcp4(0), ip(15, 1), 3},
		{"TTL", tcp4(0), ip(22, 9), 3},
		{"no DF", tcp4(0), ip(20, 0), 3},
		{"reserved bit", tcp4(0), ip(20, 0xc0), 3},
		{"id ahead", tcp4(0), ip(19, 0xee), 3},
		{"id the same under DF, then not", tcp4(0), ip(19, 0xe8), 2},
		{"IPv4 checksum", tcp4(0), func(s *single) { s.data[24]++ }, 3},
		{"IPv6 flow label", v6, func(s *single) { s.data[17]++ }, 3},
		{"IPv6 traffic class", v6, func(s *single) { s.data[15] ^= 0x10 }, 3},
		{"IPv6 hop limit", v6, func(s *single) { s.data[21]++ }, 3},
		{"TCP checksum", tcp4(0), func(s *single) { s.data[50]++ }, 3},
		{"payload", tcp4(0), func(s *single) { s.data[99]++ }, 3},
		{"sequence", tcp4(0), tcp(7, 1), 3},
		{"acknowledgement", tcp4(0), tcp(11, 1), 3},
		{"window", tcp4(0), tcp(15, 1), 3},
		{"urgent pointer", tcp4(0), tcp(19, 1), 3},
		{"AE", tcp4(0), tcp(12, 0x51), 3},
		{"ECE", tcp4(0), tcp(13, ack|ece), 3},
		{"CWR", tcp4(0), tcp(13, ack|cwr), 3},
		{"SYN", tcp4(0), tcp(13, ack|syn), 3},
		{"RST", tcp4(0), tcp(13, ack|rst), 3},
		{"PSH", tcp4(0), tcp(13, ack|psh), 2},
		{"FIN", tcp4(0), tcp(13, ack|fin), 2},
		{"option", tcp4(0).with(func(p *packet) { p.tcpOption = make([]byte, 4) }), tcp(20, 1), 3},
		{"padding", tcp4(0), func(s *single) { s.data = append(s.data, 0) }, 3},
		{"cut short", tcp4(0), func(s *single) { s.data = s.data[:500] }, 3},
		{"UDP without checksum", udp, func(s *single) { be.PutUint16(s.data[40:], 0) }, 3},
		{"UDP checksum", udp, func(s *single) { s.data[41]++ }, 3},
		{"UDP length", udp, func(s *single) { s.data[39]-- }, 3},
		{"fragment", udp, ip(20, 0x20), 3},
	} {
		in := stream(tt.p, 3, 1000, false)
		tt.change(&in[1])
		want := complete(in)
		frames := addAll(t, allFeatures, in)
		if len(frames) != tt.want {
			t.Errorf("%s: %d frames, want %d", tt.name, len(frames), tt.want)
		}
		var got [][]byte
		for _, f := range frames {
			checkFrame(t, allFeatures, f)
			got = append(got, segment(f.Offload, flatten(f))...)
		}
		equalFrames(t, ignoreID(got), ignoreID(want))
	}
}

// ignoreID clears the fields of a frame with DF that may change: the id, and so the header's checksum if it was
// correct.
func ignoreID(in [][]byte) (out [][]byte) {
	for _, frame := range in {
		frame = slices.Clone(frame)
		if at := networkStart(frame); frame[at]>>4 == 4 && frame[at+6]&0x40 != 0 {
			length := int(frame[at]&15) * 4
			if foldNaive(sumNaive(frame[at:at+length])) == 0xffff {
				be.PutUint16(frame[at+4:], 0)
				be.PutUint16(frame[at+10:], 0)
			}
		}
		out = append(out, frame)
	}
	return out
}

// TestCoalesceLengths: a shorter segment is the last one, a longer one starts a new frame, an empty one is not merged.
func TestCoalesceLengths(t *testing.T) {
	for _, tt := range []struct {
		lengths []int
		want    int
	}{
		{[]int{100, 100, 50}, 1},
		{[]int{100, 50, 50}, 2},
		{[]int{100, 101, 101}, 2},
		{[]int{100, 0, 100}, 3},
		{[]int{0, 0}, 2},
		{[]int{100}, 1},
	} {
		for _, udp := range []bool{false, true} {
			p := tcp4(0)
			p.udp = udp
			var in []single
			for _, n := range tt.lengths {
				p.payload = pattern(n)
				h, frame := p.single(false)
				in = append(in, single{h, frame})
				p.seq += uint32(n)
				p.id++
			}
			want := complete(in)
			frames := addAll(t, allFeatures, in)
			if len(frames) != tt.want {
				t.Errorf("%v, UDP %v: %d frames, want %d", tt.lengths, udp, len(frames), tt.want)
			}
			equalFrames(t, wireOf(t, allFeatures, frames)[flowOf(want[0])], want)
		}
	}
}

// TestPartialGarbage: a partial checksum that is not the sum of the pseudo-header stays unchanged.
func TestPartialGarbage(t *testing.T) {
	for at := range 3 {
		in := stream(tcp4(0), 3, 100, true)
		in[at].data[50] ^= 1
		want := complete(in)
		equalFrames(t, wireOf(t, allFeatures, addAll(t, allFeatures, in))[flowOf(want[0])], want)
	}
}

func TestAddFrameRefuses(t *testing.T) {
	j := virtio.NewCoalescer(allFeatures, 8, 8)
	for _, tt := range []struct {
		name string
		h    virtio.Header
		n    int
		want error
	}{
		{"superframe", virtio.Header{GSOType: virtio.GSOTCPv4}, 60, virtio.ErrGSO},
		{"too short", virtio.Header{}, 13, virtio.ErrTruncated},
		{"checksum", virtio.Header{Flags: virtio.FlagNeedsChecksum, CsumStart: 59}, 60, virtio.ErrChecksum},
	} {
		if err := j.AddFrame(tt.h, make([]byte, tt.n)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
	if n := len(j.Frames()); n != 0 {
		t.Errorf("%d frames of what was refused", n)
	}
}

// TestCoalesce: whatever arrives, the kernel makes the same frames from the result, in order within each flow.
func TestCoalesce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		f := virtio.Features(rapid.IntRange(0, 15).Draw(t, "features"))
		var queues [][]single // one flow each
		for port := range uint16(rapid.IntRange(1, 3).Draw(t, "ports")) {
			var queue []single
			for range rapid.IntRange(1, 3).Draw(t, "streams") {
				p := drawPacket(t, 1)
				p.srcPort = port
				if rapid.Bool().Draw(t, "simple") {
					p.ipOptions, p.extension, p.flags = nil, nil, p.flags&^cwr
				}
				n, size := rapid.IntRange(1, 20).Draw(t, "n"), rapid.IntRange(1, 1400).Draw(t, "size")
				in := stream(p, n, size, rapid.Bool().Draw(t, "partial"))
				disturb(t, in)
				queue = append(queue, in...)
			}
			queues = append(queues, queue)
		}
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		change := rapid.SampledFrom([]int{1, 10, 1000}).Draw(t, "change")
		want := make(map[flow][][]byte)
		var in []single
		for current := 0; len(queues) > 0; {
			if rng.IntN(change) == 0 {
				current = rng.IntN(len(queues))
			}
			next := queues[current][0]
			in = append(in, next)
			wire := complete([]single{next})[0]
			want[flowOf(wire)] = append(want[flowOf(wire)], wire)
			if queues[current] = queues[current][1:]; len(queues[current]) == 0 {
				queues = slices.Delete(queues, current, current+1)
				current = 0
			}
		}
		got := wireOf(t, f, addAll(t, f, clone(in)))
		for flow := range want {
			equalFrames(t, ignoreID(got[flow]), ignoreID(want[flow]))
		}
	})
}

// disturb changes single frames of a stream: a bit of the payload, the id throughout, the checksum.
func disturb(t *rapid.T, in []single) {
	if rapid.Bool().Draw(t, "same id") {
		for _, s := range in {
			if at := networkStart(s.data); s.data[at]>>4 == 4 {
				be.PutUint16(s.data[at+4:], 7)
				be.PutUint16(s.data[at+10:], 0)
				be.PutUint16(s.data[at+10:], ^foldNaive(sumNaive(s.data[at:at+int(s.data[at]&15)*4])))
			}
		}
	}
	if rapid.Bool().Draw(t, "corrupt") {
		s := in[rapid.IntRange(0, len(in)-1).Draw(t, "which")]
		s.data[len(s.data)-1] ^= 1
	}
}

// TestMixed: frames and segments of one flow in one batch keep their order.
func TestMixed(t *testing.T) {
	p := tcp4(3000)
	h, frame := p.superframe(1000)
	cut := split(t, 1, h, frame)
	p.seq += 3000
	p.id += 3
	frames := stream(p, 3, 1000, true)
	want := complete(frames)
	j := virtio.NewCoalescer(allFeatures, 16, 16)
	add := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	add(j.AddSegment(0, cut[0].meta, cut[0].data))
	add(j.AddFrame(frames[0].h, frames[0].data))
	add(j.AddSegment(0, cut[1].meta, cut[1].data))
	add(j.AddSegment(0, cut[2].meta, cut[2].data))
	add(j.AddFrame(frames[1].h, frames[1].data))
	add(j.AddFrame(frames[2].h, frames[2].data))
	out := j.Frames()
	if len(out) != 4 {
		t.Errorf("%d frames, want 4", len(out))
	}
	equalFrames(t, wireOf(t, allFeatures, out)[flowOf(want[0])],
		[][]byte{cut[0].want, want[0], cut[1].want, cut[2].want, want[1], want[2]})
}

// TestFragmentsKeepPlace: a frame of an unknown flow is not overtaken by a frame of any flow.
func TestFragmentsKeepPlace(t *testing.T) {
	in := stream(tcp4(0).with(func(p *packet) { p.udp = true }), 4, 100, false)
	fragment := single{data: slices.Clone(in[0].data)}
	fragment.data[21] = 9
	frames := addAll(t, allFeatures, slices.Concat(in[:2], []single{fragment}, in[2:]))
	if len(frames) != 3 || len(frames[1].More) != 0 {
		t.Errorf("%d frames, want two, the fragment, two", len(frames))
	}
}

// TestFrameBehindSegment: a frame that continues an unfinished run of segments is not merged into it.
func TestFrameBehindSegment(t *testing.T) {
	p := tcp4(3000)
	h, frame := p.superframe(1000)
	cut := split(t, 1, h, frame)
	again := stream(p, 3, 1000, true)[1] // the frame that segment 1 stands for
	want := complete([]single{again})[0]
	j := virtio.NewCoalescer(allFeatures, 16, 16)
	must(t, j.AddSegment(0, cut[0].meta, cut[0].data))
	must(t, j.AddFrame(again.h, again.data))
	must(t, j.AddSegment(0, cut[1].meta, cut[1].data))
	out := j.Frames()
	if len(out) != 3 {
		t.Errorf("%d frames, want 3", len(out))
	}
	equalFrames(t, wireOf(t, allFeatures, out)[flowOf(want)], [][]byte{cut[0].want, want, cut[1].want})
}
