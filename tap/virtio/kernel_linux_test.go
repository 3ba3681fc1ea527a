package virtio_test

import (
	"math/rand/v2"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"weft/tap/taptest"
	"weft/tap/virtio"
)

// openTAP makes a TAP with the virtio-net header in a namespace of its own and brings it up.
func openTAP(t *testing.T) (fd int) {
	t.Helper()
	taptest.InNamespace(t)
	fd, err := unix.Open(netlink.TUN, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	ifr, err := unix.NewIfreq("wd-virtio")
	if err != nil {
		t.Fatal(err)
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		t.Fatal(err)
	}
	link, err := netlink.LinkByName("wd-virtio")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		t.Fatal(err)
	}
	return fd
}

// write hands f to the kernel in one system call, as a queue does.
func write(fd int, f virtio.Frame) error {
	header := make([]byte, virtio.HeaderLen)
	f.Offload.Put(header)
	_, err := unix.Writev(fd, append([][]byte{header, f.Data}, f.More...))
	return err
}

// TestKernelTakesSuperframes: what Inspect accepts, the kernel accepts, whatever HdrLen says within the frame.
func TestKernelTakesSuperframes(t *testing.T) {
	fd := openTAP(t)
	rapid.Check(t, func(t *rapid.T) {
		p := drawPacket(t, rapid.SampledFrom([]int{1, 3000, 60000}).Draw(t, "most"))
		h, frame := p.superframe(drawSize(t, p))
		h.HdrLen = uint16(rapid.IntRange(0, len(frame)).Draw(t, "HdrLen"))
		if _, err := virtio.Inspect(h, frame); err != nil {
			t.Fatal(err)
		}
		if err := write(fd, virtio.Frame{Offload: h, Data: frame}); err != nil {
			t.Fatalf("%+v, %d bytes: %v", h, len(frame), err)
		}
	})
}

// TestKernelAgrees: the kernel refuses what the limits of this package say it refuses, so that they are no guesses.
func TestKernelAgrees(t *testing.T) {
	fd := openTAP(t)
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
		{"checksum in the Ethernet header", tcp4(4000), 1000, func(h *virtio.Header) { h.CsumStart = 14 }},
		{"checksum beyond the end", tcp4(4000), 1000, func(h *virtio.Header) { h.CsumStart = 4050 }},
	} {
		h, frame := tt.p.superframe(tt.size)
		tt.change(&h)
		if _, err := virtio.Inspect(h, frame); err == nil {
			t.Errorf("%s: accepted", tt.name)
		}
		if err := write(fd, virtio.Frame{Offload: h, Data: frame}); err == nil {
			t.Logf("%s: this kernel accepts it", tt.name)
		}
	}
}

// TestKernelTakesJoined: whatever comes out of a Joiner the kernel takes, however slices and frames got in.
func TestKernelTakesJoined(t *testing.T) {
	fd := openTAP(t)
	rapid.Check(t, func(t *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		j := virtio.NewJoiner(allFeatures, 512, 2048)
		for i := range rapid.IntRange(1, 3).Draw(t, "superframes") {
			p := drawPacket(t, rapid.SampledFrom([]int{1, 3000, 60000}).Draw(t, "most"))
			h, frame := p.superframe(max(drawSize(t, p), len(p.payload)/600))
			for _, s := range split(t, uint64(i), h, frame) {
				if rng.IntN(20) > 0 {
					must(t, j.AddSlice(s.source, s.meta, s.data))
				}
			}
			for _, s := range stream(p, 5, 100, rng.IntN(2) == 0) {
				must(t, j.AddFrame(s.h, s.data))
			}
		}
		for _, f := range j.Frames() {
			if err := write(fd, f); err != nil {
				t.Fatalf("%+v, %d bytes in %d pieces: %v", f.Offload, f.Len(), 1+len(f.More), err)
			}
		}
	})
}
