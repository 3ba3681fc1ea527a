package virtio_test

import (
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"weft/tap/virtio"
)

// wantLayout returns the layout that Inspect must find in the frame built from p.
func wantLayout(p packet, size int) (l3, l4, headers, segments int) {
	_, l3, l4 = p.build()
	headers = l4 + 20 + len(p.tcpOption)
	if p.udp {
		headers = l4 + 8
	}
	return l3, l4, headers, (len(p.payload) + size - 1) / size
}

func TestInspectAccepts(t *testing.T) {
	v6 := func(p *packet) { p.ipv6 = true }
	udp := func(p *packet) { p.udp = true }
	for _, tt := range []struct {
		name string
		p    packet
		size int
	}{
		{"TCP over IPv4", tcp4(4000), 1398},
		{"one segment", tcp4(100), 1398},
		{"one segment, full", tcp4(1398), 1398},
		{"one byte", tcp4(1), 1},
		{"whole segments", tcp4(2796), 1398},
		{"64 KiB", tcp4(65535 - 40), 1398},
		{"small MSS", tcp4(65535 - 40), 48},
		{"2,048 segments", tcp4(2048), 1},
		{"largest segment size", tcp4(4000), 0xfffe},
		{"TCP over IPv6", tcp4(4000).with(v6), 1398},
		{"IPv6 of 64 KiB", tcp4(65535 - 60).with(v6), 1398},
		{"UDP over IPv4", tcp4(4000).with(udp), 1398},
		{"UDP over IPv6", tcp4(4000).with(udp).with(v6), 1398},
		{"128 UDP datagrams", tcp4(12800).with(udp), 100},
		{"VLAN", tcp4(4000).with(func(p *packet) { p.tags = []uint16{0x8100} }), 1398},
		{"two VLANs", tcp4(4000).with(func(p *packet) { p.tags = []uint16{0x88a8, 0x8100} }), 1398},
		{"IPv4 options", tcp4(4000).with(func(p *packet) { p.ipOptions = make([]byte, 40) }), 1398},
		{"IPv6 extensions", tcp4(4000).with(v6).with(func(p *packet) { p.extension = []uint8{0, 60, 43, 60} }), 1398},
		{"TCP options", tcp4(4000).with(func(p *packet) { p.tcpOption = make([]byte, 40) }), 1398},
		{"FIN, PSH, CWR, ECE", tcp4(4000).with(func(p *packet) { p.flags = ack | fin | psh | cwr | ece }), 1398},
		{"no DF", tcp4(4000).with(func(p *packet) { p.df = false }), 1398},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, frame := tt.p.superframe(tt.size)
			l, err := virtio.Inspect(h, frame)
			if err != nil {
				t.Fatal(err)
			}
			l3, l4, headers, segments := wantLayout(tt.p, tt.size)
			if l.L3 != l3 || l.L4 != l4 || l.HeaderLen != headers || l.Segments != segments ||
				l.Payload != len(tt.p.payload) || l.SegmentSize != tt.size || l.CsumOffset != int(h.CsumOffset) ||
				l.Type != h.GSOType&^virtio.GSOECN || l.ECN != (h.GSOType&virtio.GSOECN != 0) {
				t.Errorf("%+v; want %d, %d, %d headers, %d segments", l, l3, l4, headers, segments)
			}
			if whole := slices.Concat(frame[:headers], joined(l, frame)); !slices.Equal(whole, frame) {
				t.Error("the segments are not the payload")
			}
		})
	}
}

func joined(l virtio.Layout, frame []byte) (payload []byte) {
	for i := range l.Segments {
		payload = append(payload, l.Segment(frame, i)...)
	}
	return payload
}

func TestInspectRefuses(t *testing.T) {
	type change = func(h *virtio.Header, frame []byte) []byte
	v6 := tcp4(4000).with(func(p *packet) { p.ipv6 = true })
	udp := tcp4(4000).with(func(p *packet) { p.udp = true })
	extended := v6.with(func(p *packet) { p.extension = []uint8{60} })
	set := func(at int, values ...byte) change {
		return func(_ *virtio.Header, frame []byte) []byte { copy(frame[at:], values); return frame }
	}
	header := func(change func(*virtio.Header)) change {
		return func(h *virtio.Header, frame []byte) []byte { change(h); return frame }
	}
	for _, tt := range []struct {
		name   string
		p      packet
		change change
		want   error
	}{
		{"no checksum left", tcp4(4000), header(func(h *virtio.Header) { h.Flags = 0 }), virtio.ErrChecksum},
		{"single", tcp4(4000), header(func(h *virtio.Header) { h.GSOType = 0 }), virtio.ErrGSO},
		{"UFO", udp, header(func(h *virtio.Header) { h.GSOType = virtio.GSOUDP }), virtio.ErrGSO},
		{"tunnel", tcp4(4000), header(func(h *virtio.Header) { h.GSOType |= 0x20 }), virtio.ErrGSO},
		{"IPv6 declared, IPv4 sent", tcp4(4000), header(func(h *virtio.Header) { h.GSOType = virtio.GSOTCPv6 }), virtio.ErrGSO},
		{"IPv4 declared, IPv6 sent", v6, header(func(h *virtio.Header) { h.GSOType = virtio.GSOTCPv4 }), virtio.ErrGSO},
		{"UDP declared, TCP sent", tcp4(4000), header(func(h *virtio.Header) { h.GSOType = virtio.GSOUDPL4 }), virtio.ErrGSO},
		{"TCP declared, UDP sent", udp, header(func(h *virtio.Header) { h.GSOType = virtio.GSOTCPv4 }), virtio.ErrGSO},
		{"ECN of UDP", udp, header(func(h *virtio.Header) { h.GSOType |= virtio.GSOECN }), virtio.ErrGSO},
		{"segment size 0", tcp4(4000), header(func(h *virtio.Header) { h.GSOSize = 0 }), virtio.ErrGSO},
		{"GSO_BY_FRAGS", tcp4(4000), header(func(h *virtio.Header) { h.GSOSize = 0xffff }), virtio.ErrGSO},
		{"2,049 segments", tcp4(2049), header(func(h *virtio.Header) { h.GSOSize = 1 }), virtio.ErrGSO},
		{"129 UDP datagrams", udp, header(func(h *virtio.Header) { h.GSOSize = 31 }), virtio.ErrGSO},
		{"checksum start", tcp4(4000), header(func(h *virtio.Header) { h.CsumStart++ }), virtio.ErrChecksum},
		{"checksum offset", tcp4(4000), header(func(h *virtio.Header) { h.CsumOffset = 6 }), virtio.ErrChecksum},
		{"HdrLen beyond the end", tcp4(4000), header(func(h *virtio.Header) { h.HdrLen = 4055 }), virtio.ErrTruncated},
		{"no payload", tcp4(0), header(func(*virtio.Header) {}), virtio.ErrLength},
		{"padding", tcp4(4), func(_ *virtio.Header, f []byte) []byte { return append(f, 0, 0) }, virtio.ErrLength},
		{"payload cut short", tcp4(4000), func(_ *virtio.Header, f []byte) []byte { return f[:4000] }, virtio.ErrLength},
		{"IPv4 length 0", tcp4(4000), set(16, 0, 0), virtio.ErrLength},
		{"IPv6 length 0", v6, set(18, 0, 0), virtio.ErrLength},
		{"IPv6 length beyond 64 KiB", v6, set(18, 0xff, 0xff), virtio.ErrLength},
		{"UDP length", udp, set(38, 0, 9), virtio.ErrLength},
		{"IPv4 header length", tcp4(4000), set(14, 0x44), virtio.ErrLength},
		{"IPv4 version", tcp4(4000), set(14, 0x65), virtio.ErrProtocol},
		{"IPv6 version", v6, set(14, 0x40), virtio.ErrProtocol},
		{"first fragment", tcp4(4000), set(20, 0x20), virtio.ErrFragment},
		{"later fragment", tcp4(4000), set(20, 0, 1), virtio.ErrFragment},
		{"IPv6 fragment", extended, set(20, 44), virtio.ErrFragment},
		{"ICMP", tcp4(4000), set(23, 1), virtio.ErrProtocol},
		{"ESP", v6, set(20, 50), virtio.ErrProtocol},
		{"AH", extended, set(20, 51), virtio.ErrProtocol},
		{"no next header", extended, set(54, 59), virtio.ErrProtocol},
		{"ARP", tcp4(4000), set(12, 0x08, 0x06), virtio.ErrProtocol},
		{"three VLANs", tcp4(4000).with(func(p *packet) { p.tags = []uint16{0x8100, 0x8100, 0x8100} }),
			header(func(*virtio.Header) {}), virtio.ErrProtocol},
		{"TCP header length", tcp4(4000), set(46, 0x40), virtio.ErrLength},
		{"TCP header beyond the end", tcp4(4), set(46, 0xf0), virtio.ErrTruncated},
		{"extension beyond the end", extended.with(func(p *packet) { p.payload = p.payload[:9] }),
			set(55, 0xff), virtio.ErrTruncated},
		{"SYN", tcp4(4000), set(47, syn|ack), virtio.ErrFlags},
		{"RST", tcp4(4000), set(47, rst|ack), virtio.ErrFlags},
		{"URG", tcp4(4000), set(47, urg|ack), virtio.ErrFlags},
	} {
		h, frame := tt.p.superframe(1398)
		frame = tt.change(&h, frame)
		if _, err := virtio.Inspect(h, frame); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestInspectTruncated: no prefix of a superframe is accepted, and Inspect does not read beyond any.
func TestInspectTruncated(t *testing.T) {
	for _, p := range []packet{
		tcp4(30).with(func(p *packet) { p.tags, p.tcpOption = []uint16{0x88a8, 0x8100}, make([]byte, 12) }),
		tcp4(30).with(func(p *packet) { p.ipv6, p.udp, p.extension = true, true, []uint8{0, 60} }),
	} {
		h, frame := p.superframe(10)
		for n := range frame {
			if _, err := virtio.Inspect(h, frame[:n:n]); err == nil {
				t.Errorf("%d of %d bytes are accepted", n, len(frame))
			}
		}
	}
}

func TestCheckSingle(t *testing.T) {
	partial := func(start, offset uint16) virtio.Header {
		return virtio.Header{Flags: virtio.FlagNeedsChecksum, CsumStart: start, CsumOffset: offset}
	}
	for _, tt := range []struct {
		name string
		h    virtio.Header
		n    int
		want error
	}{
		{"plain", virtio.Header{}, 14, nil},
		{"checked", virtio.Header{Flags: virtio.FlagDataValid}, 60, nil},
		{"plain, too short", virtio.Header{}, 13, virtio.ErrTruncated},
		{"partial", partial(34, 6), 60, nil},
		{"partial at the end", partial(34, 6), 42, nil},
		{"partial beyond the end", partial(34, 6), 41, virtio.ErrChecksum},
		{"partial far beyond", partial(0x7fff, 0xffff), 60, virtio.ErrChecksum},
		{"partial in the IP header", partial(33, 6), 60, virtio.ErrChecksum},
		{"start beyond what the kernel can note", partial(0x8000, 0), 0x9000, virtio.ErrChecksum},
		{"HdrLen beyond the end", virtio.Header{HdrLen: 61}, 60, virtio.ErrTruncated},
		{"superframe", virtio.Header{GSOType: virtio.GSOTCPv4}, 60, virtio.ErrGSO},
	} {
		if err := virtio.CheckSingle(tt.h, make([]byte, tt.n)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, err, tt.want)
		}
	}
}

// TestCut: segments cut in software are equal to those that the kernel cuts.
func TestCut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPacket(t, 5000)
		h, frame := p.superframe(drawSize(t, p))
		l, err := virtio.Inspect(h, frame)
		if err != nil {
			t.Fatal(err)
		}
		before := slices.Clone(frame)
		want := segment(h, frame)
		if l.Segments != len(want) {
			t.Fatalf("%d segments, want %d", l.Segments, len(want))
		}
		for i := range want {
			got := l.Cut([]byte("kept"), frame, i)
			if string(got[:4]) != "kept" || !slices.Equal(got[4:], want[i]) {
				t.Fatalf("segment %d\n got %x\nwant %x", i, got[4:], want[i])
			}
		}
		if !slices.Equal(frame, before) {
			t.Fatal("the superframe was changed")
		}
	})
}

// TestSegmentHeaders: the kernel cuts a run with segmented headers into exactly the segments of the run.
func TestSegmentHeaders(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := drawPacket(t, 5000)
		h, frame := p.superframe(drawSize(t, p))
		l, err := virtio.Inspect(h, frame)
		if err != nil {
			t.Fatal(err)
		}
		first := rapid.IntRange(0, l.Segments-1).Draw(t, "first")
		n := rapid.IntRange(1, l.Segments-first).Draw(t, "n")
		run := slices.Clone(frame[:l.HeaderLen])
		for i := range n {
			run = append(run, l.Segment(frame, first+i)...)
		}
		l.SegmentHeaders(run, first, len(run)-l.HeaderLen, first+n == l.Segments)
		if _, err := virtio.Inspect(h, run); err != nil {
			t.Fatalf("the run is refused: %v", err)
		}
		equalFrames(t, segment(h, run), segment(h, frame)[first:first+n])
	})
}

// TestRoutingHeader: if a routing header has segments left, the sum of the pseudo-header covers a destination that only
// the sender knows. SegmentHeaders must keep it.
func TestRoutingHeader(t *testing.T) {
	p := tcp4(3000).with(func(p *packet) { p.ipv6, p.extension = true, []uint8{43} })
	h, frame := p.superframe(1000)
	field := int(h.CsumStart + h.CsumOffset)
	const other = 0x1111 // the difference that the final destination makes
	be.PutUint16(frame[field:], foldNaive(uint32(be.Uint16(frame[field:]))+other))
	l, err := virtio.Inspect(h, frame)
	if err != nil {
		t.Fatal(err)
	}
	for i, want := range segment(h, frame) {
		sum := foldNaive(uint32(^be.Uint16(want[field:])) + other)
		be.PutUint16(want[field:], ^sum)
		if got := l.Cut(nil, frame, i); !slices.Equal(got, want) {
			t.Errorf("segment %d\n got %x\nwant %x", i, got, want)
		}
	}
}

func TestCompleteChecksum(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, frame := drawPacket(t, 3000).single(true)
		want := segment(h, frame)[0]
		virtio.CompleteChecksum(h, frame)
		if !slices.Equal(frame, want) {
			t.Fatalf("got %x, want %x", frame, want)
		}
		virtio.CompleteChecksum(virtio.Header{}, frame)
		if !slices.Equal(frame, want) {
			t.Fatal("a complete frame was changed")
		}
	})
}

// TestCompleteZero: a UDP checksum of 0 is written as 0xffff.
func TestCompleteZero(t *testing.T) {
	p := tcp4(2).with(func(p *packet) { p.udp = true })
	h, frame := p.single(true)
	rest := frame[len(frame)-2:]
	be.PutUint16(rest, 0)
	be.PutUint16(rest, ^foldNaive(sumNaive(frame[h.CsumStart:])))
	virtio.CompleteChecksum(h, frame)
	if got := be.Uint16(frame[h.CsumStart+6:]); got != 0xffff {
		t.Errorf("checksum %#x", got)
	}
}

type fataler interface {
	Helper()
	Fatalf(format string, args ...any)
}

func equalFrames(t fataler, got, want [][]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range want {
		if !slices.Equal(got[i], want[i]) {
			t.Fatalf("frame %d of %d\n got %x\nwant %x", i, len(want), got[i], want[i])
		}
	}
}
