package virtio_test

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"weft/tap/taptest"
	"weft/tap/virtio"
)

// kernel is a bridge between two TAPs: superframes are written to one, and read from the other in segments, as no
// features were set on that one (TUNSETOFFLOAD).
type kernel struct {
	in, out int
	buf     []byte
}

// patience is how long a test waits for a frame that must come, in milliseconds.
const patience = 5000

func newKernel(t *testing.T) *kernel {
	t.Helper()
	taptest.InNamespace(t)
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "wd-bridge"}}
	noErr(t, netlink.LinkAdd(bridge))
	k := &kernel{in: openTAP(t, "wd-in", bridge), out: openTAP(t, "wd-out", bridge), buf: make([]byte, 1<<17)}
	noErr(t, netlink.LinkSetUp(bridge))
	return k
}

func noErr(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// openTAP makes a TAP with the virtio-net header on bridge. Its MTU and its queue are large, so that no frame is lost.
func openTAP(t *testing.T, name string, bridge netlink.Link) (fd int) {
	t.Helper()
	fd, err := unix.Open(netlink.TUN, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	noErr(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	ifr, err := unix.NewIfreq(name)
	noErr(t, err)
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	noErr(t, unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr))
	link, err := netlink.LinkByName(name)
	noErr(t, err)
	noErr(t, netlink.LinkSetMTU(link, 65521))
	noErr(t, netlink.LinkSetTxQLen(link, 10000))
	noErr(t, netlink.LinkSetMaster(link, bridge))
	noErr(t, netlink.LinkSetUp(link))
	return fd
}

// write writes f to the kernel in one system call, as a queue does.
func (k *kernel) write(f virtio.Frame) error {
	header := make([]byte, virtio.HeaderLen)
	f.Offload.Put(header)
	_, err := unix.Writev(k.in, append([][]byte{header, f.Data}, f.More...))
	return err
}

// read returns the next n frames of the tests from the kernel.
func (k *kernel) read(t fataler, n int) (out [][]byte) {
	t.Helper()
	for len(out) < n {
		size, err := unix.Read(k.out, k.buf)
		switch err {
		case nil:
			if frame := k.buf[virtio.HeaderLen:size]; bytes.Equal(frame[6:12], []byte{0x0a, 0, 0, 0, 0, 2}) {
				out = append(out, bytes.Clone(frame))
			}
		case unix.EAGAIN:
			poll := []unix.PollFd{{Fd: int32(k.out), Events: unix.POLLIN}}
			if ready, err := unix.Poll(poll, patience); ready == 0 {
				t.Fatalf("the kernel made %d frames, want %d: %v", len(out), n, err)
			}
		case unix.EINTR:
		default:
			t.Fatalf("read: %v", err)
		}
	}
	return out
}

// eitherZero writes TCP checksums of 0xffff as 0. The kernel completes the TCP checksum of a frame that needs no
// segmentation by the rule for UDP (skb_checksum_help), and both values are equal to a receiver.
func eitherZero(frames [][]byte) [][]byte {
	for _, b := range frames {
		at := networkStart(b)
		protocol := flowOf(b).protocol
		l4 := at + int(b[at]&15)*4
		if b[at]>>4 == 6 {
			next := b[at+6]
			for l4 = at + 40; next != protocol; {
				next, l4 = b[l4], l4+8*(1+int(b[l4+1]))
			}
		}
		if protocol == 6 && be.Uint16(b[l4+16:]) == 0xffff {
			be.PutUint16(b[l4+16:], 0)
		}
	}
	return frames
}

// TestKernelSegments: the kernel accepts every frame that Inspect accepts, with any HdrLen within the frame, and cuts
// it as Cut and the tests' own segmentation do.
func TestKernelSegments(t *testing.T) {
	k := newKernel(t)
	rapid.Check(t, func(t *rapid.T) {
		p := drawPacket(t, rapid.SampledFrom([]int{60000, 3000, 1}).Draw(t, "most"))
		h, frame := p.superframe(drawSize(t, p))
		h.HdrLen = uint16(rapid.IntRange(0, len(frame)).Draw(t, "HdrLen"))
		l, err := virtio.Inspect(h, frame)
		if err != nil {
			t.Fatal(err)
		}
		given := h
		if l.Segments == 1 {
			given.GSOType, given.GSOSize = virtio.GSONone, 0 // see Inspect
		}
		if err := k.write(virtio.Frame{Offload: given, Data: frame}); err != nil {
			t.Fatalf("%+v, %d bytes: %v", given, len(frame), err)
		}
		var cut [][]byte
		for i := range l.Segments {
			cut = append(cut, l.Cut(nil, frame, i))
		}
		want := segment(h, frame)
		equalFrames(t, cut, want)
		equalFrames(t, eitherZero(k.read(t, len(want))), eitherZero(want))
	})
}

// TestKernelRefuses: the kernel refuses the frames that it refuses according to the limits of this package.
func TestKernelRefuses(t *testing.T) {
	k := newKernel(t)
	udp := tcp4(12900).with(func(p *packet) { p.udp = true })
	for _, tt := range []struct {
		name   string
		p      packet
		size   int
		change func(h *virtio.Header)
	}{
		{"GSO_BY_FRAGS", tcp4(4000), 0xffff, func(*virtio.Header) {}},
		{"segment size 0", tcp4(4000), 0, func(*virtio.Header) {}},
		{"129 UDP datagrams", udp, 100, func(*virtio.Header) {}},
		{"ECN of UDP", udp, 1000, func(h *virtio.Header) { h.GSOType |= virtio.GSOECN }},
		{"HdrLen beyond the end", tcp4(4000), 1000, func(h *virtio.Header) { h.HdrLen = 4055 }},
		{"UDP without a partial checksum", udp, 1000, func(h *virtio.Header) { h.Flags = 0 }},
		{"checksum offset", tcp4(4000), 1000, func(h *virtio.Header) { h.CsumOffset = 6 }},
		{"checksum in the Ethernet header", tcp4(4000), 1000, func(h *virtio.Header) { h.CsumStart = 12 }},
		{"checksum beyond the end", tcp4(4000), 1000, func(h *virtio.Header) { h.CsumStart = 4050 }},
	} {
		h, frame := tt.p.superframe(tt.size)
		tt.change(&h)
		if _, err := virtio.Inspect(h, frame); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
		if err := k.write(virtio.Frame{Offload: h, Data: frame}); err == nil {
			t.Logf("%s: this kernel takes it; others do not", tt.name)
		}
	}
}

// TestKernelAcceptsCoalesced: the kernel accepts every frame from a Coalescer, and makes the added frames from them.
func TestKernelAcceptsCoalesced(t *testing.T) {
	k := newKernel(t)
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		j := virtio.NewCoalescer(allFeatures, 512, 2048)
		want := make(map[flow][][]byte)
		n := 0
		expect := func(wire []byte) {
			want[flowOf(wire)] = append(want[flowOf(wire)], wire)
			n++
		}
		for i := range rapid.IntRange(1, 3).Draw(t, "superframes") {
			p := drawPacket(t, rapid.SampledFrom([]int{60000, 3000, 1}).Draw(t, "most"))
			h, frame := p.superframe(max(drawSize(t, p), len(p.payload)/600))
			for _, s := range split(t, uint64(i), h, frame) {
				if rng.IntN(20) > 0 {
					must(t, j.AddSegment(s.source, s.meta, s.data))
					expect(s.want)
				}
			}
			for _, s := range stream(p, 5, 100, rng.IntN(2) == 0) {
				expect(complete([]single{s})[0])
				must(t, j.AddFrame(s.h, s.data))
			}
		}
		for _, f := range j.Frames() {
			if err := k.write(f); err != nil {
				t.Fatalf("%+v, %d bytes in %d pieces: %v", f.Offload, f.Len(), 1+len(f.More), err)
			}
		}
		got := make(map[flow][][]byte)
		for _, wire := range eitherZero(k.read(t, n)) {
			got[flowOf(wire)] = append(got[flowOf(wire)], wire)
		}
		for flow := range want {
			equalFrames(t, got[flow], eitherZero(want[flow]))
		}
	})
}
