package tap_test

import (
	"encoding/binary"
	"net"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/tap"
	"weft/tap/taptest"
	"weft/tap/virtio"
)

// TestOffload: the kernel leaves checksums, and with USO the segmentation of UDP, to a device with these features.
func TestOffload(t *testing.T) {
	taptest.InNamespace(t)
	d := open(t, tap.Config{Name: "wd-tap", MTU: 1438, Queues: 2})
	want := virtio.FeatureChecksum | virtio.FeatureTSO4 | virtio.FeatureTSO6
	if !d.Features().Has(want) {
		t.Fatalf("features %b lack some of %b", d.Features(), want)
	}
	conn := neighbor(t, d.Name())
	const segment, count = 500, 20
	if d.Features().Has(virtio.FeatureUSO) {
		raw, err := conn.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		if err := raw.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, segment); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := conn.Write(make([]byte, segment*count)); err != nil {
		t.Fatal(err)
	}
	f := nextUDP(t, d)
	if f.Offload.Flags&virtio.FlagNeedsChecksum == 0 || f.Offload.CsumOffset != 6 {
		t.Errorf("header %+v, want a checksum left to write", f.Offload)
	}
	if d.Features().Has(virtio.FeatureUSO) && (f.Offload.GSOType != virtio.GSOUDPL4 || len(f.Data) < segment*count) {
		t.Errorf("header %+v of %d bytes, want a superframe", f.Offload, len(f.Data))
	}
}

// TestPlainPromisesNothing: without the header there are no offloads.
func TestPlainPromisesNothing(t *testing.T) {
	taptest.InNamespace(t)
	if d := open(t, tap.Config{Name: "wd-tap", MTU: 1438, Queues: 1, Plain: true}); d.Features() != 0 {
		t.Errorf("features %b", d.Features())
	}
}

// neighbor assigns an address to the interface and returns a socket to another address behind it.
func neighbor(t *testing.T, name string) *net.UDPConn {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := netlink.ParseAddr("192.0.2.1/24")
	if err != nil {
		t.Fatal(err)
	}
	if err := netlink.AddrAdd(link, addr); err != nil {
		t.Fatal(err)
	}
	other := &netlink.Neigh{
		LinkIndex: link.Attrs().Index, State: netlink.NUD_PERMANENT,
		IP: net.IPv4(192, 0, 2, 2), HardwareAddr: net.HardwareAddr{0x0a, 0, 0, 0, 0, 2},
	}
	if err := netlink.NeighAdd(other); err != nil {
		t.Fatal(err)
	}
	conn, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: other.IP, Port: 9})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return conn
}

// nextUDP returns the first frame with UDP over IPv4 from any queue of d.
func nextUDP(t *testing.T, d tap.Device) tap.Frame {
	t.Helper()
	found := make(chan tap.Frame, 64) // more than the test has sent
	readAll(d, func(f tap.Frame) {
		if len(f.Data) > 34 && binary.BigEndian.Uint16(f.Data[12:]) == unix.ETH_P_IP && f.Data[23] == unix.IPPROTO_UDP {
			found <- tap.Frame{Offload: f.Offload, Data: append([]byte(nil), f.Data...)}
		}
	})
	select {
	case f := <-found:
		return f
	case <-time.After(10 * time.Second):
		t.Fatal("nothing comes out of the device")
		return tap.Frame{}
	}
}
