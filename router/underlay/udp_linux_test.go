package underlay_test

import (
	"errors"
	"net"
	"net/netip"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"github.com/containernetworking/plugins/pkg/ns"
	"golang.org/x/sys/unix"

	"weft/router/underlay"
	"weft/router/underlay/underlaytest"
)

func listen(t testing.TB, cfg underlay.Config) *underlay.UDP {
	t.Helper()
	u, err := underlay.Listen(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { u.Close() })
	return u
}

// at returns the address of u on the loopback interface.
func at(u *underlay.UDP, ip string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(ip), u.LocalAddr().Port())
}

func hasIPv6() bool {
	conn, err := net.ListenPacket("udp6", "[::1]:0")
	if err == nil {
		conn.Close()
	}
	return err == nil
}

// configs are configurations that must all behave in the same way, by their offloads.
var configs = map[string]underlay.Config{
	"gso,gro": {},
	"gro":     {NoGSO: true},
	"gso":     {NoGRO: true},
	"none":    {NoGSO: true, NoGRO: true},
}

func TestConformance(t *testing.T) {
	for name, ip := range map[string]string{"IPv4": "127.0.0.1", "IPv6": "::1"} {
		for features, cfg := range configs {
			t.Run(name+"/"+features, func(t *testing.T) {
				if ip == "::1" && !hasIPv6() {
					t.Skip("the host has no IPv6")
				}
				underlaytest.TestConn(t, func(t *testing.T) underlaytest.Pair {
					a, b := listen(t, cfg), listen(t, cfg)
					if got := a.Features().String(); got != features {
						t.Fatalf("features %s, want %s", got, features)
					}
					return underlaytest.Pair{A: a, B: b, AddrA: at(a, ip), AddrB: at(b, ip)}
				})
			})
		}
	}
}

// TestConformanceOnWire: the suite between two hosts, where datagrams larger than the MTU are fragmented.
func TestConformanceOnWire(t *testing.T) {
	hostA, hostB := twoHosts(t)
	for name, ips := range map[string][2]string{"IPv4": {"10.77.1.1", "10.77.1.2"}, "IPv6": {"fd77::1", "fd77::2"}} {
		for features, cfg := range configs {
			t.Run(name+"/"+features, func(t *testing.T) {
				underlaytest.TestConn(t, func(t *testing.T) underlaytest.Pair {
					a, b := listenIn(t, hostA, cfg), listenIn(t, hostB, cfg)
					return underlaytest.Pair{A: a, B: b, AddrA: at(a, ips[0]), AddrB: at(b, ips[1])}
				})
			})
		}
	}
}

// listenIn is listen in the network namespace of the file path.
func listenIn(t *testing.T, path string, cfg underlay.Config) (u *underlay.UDP) {
	t.Helper()
	if err := ns.WithNetNSPath(path, func(ns.NetNS) error {
		u = listen(t, cfg)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	return u
}

// TestStats: datagrams of equal size cross the stack together, also with a source address.
func TestStats(t *testing.T) {
	a, b := listen(t, underlay.Config{Source: netip.MustParseAddr("127.0.0.9")}), listen(t, underlay.Config{})
	batch := []underlay.Datagram{{Addr: at(b, "127.0.0.1"), Buf: make([]byte, 60*1000), SegmentSize: 1000}}
	for range 4 {
		batch = append(batch, underlay.Datagram{Addr: at(b, "127.0.0.1"), Buf: make([]byte, 1000)})
	}
	if _, err := a.WriteBatch(batch); err != nil {
		t.Fatal(err)
	}
	in := []underlay.Datagram{{Buf: make([]byte, 1<<16)}}
	if _, err := underlaytest.Read(b, in); err != nil || in[0].Addr != at(a, "127.0.0.9") || in[0].SegmentSize != 1000 {
		t.Errorf("from %v in segments of %d, %v", in[0].Addr, in[0].SegmentSize, err)
	}
	if got := a.Stats(); got != (underlay.Stats{SendMessages: 1, SendDatagrams: 64}) {
		t.Errorf("sent: %+v", got)
	}
	if got := b.Stats(); got != (underlay.Stats{ReceiveMessages: 1, ReceiveDatagrams: 64}) {
		t.Errorf("received: %+v", got)
	}
}

// TestBuffers: the kernel's buffers have the requested sizes, with the privilege.
func TestBuffers(t *testing.T) {
	receive, send := listen(t, underlay.Config{ReceiveBuffer: 100_000, SendBuffer: 50_000}).Buffers()
	if receive != 100_000 || send != 50_000 {
		t.Errorf("%d and %d bytes", receive, send)
	}
}

func TestPortInUse(t *testing.T) {
	first := listen(t, underlay.Config{})
	port := first.LocalAddr().Port()
	_, err := underlay.Listen(underlay.Config{Port: port})
	if !errors.Is(err, underlay.ErrPortInUse) || !strings.Contains(err.Error(), strconv.Itoa(int(port))) {
		t.Errorf("error %v, want ErrPortInUse and the port", err)
	}
}

// TestSource: all of 127.0.0.0/8 belongs to the host, so a source other than the default one is visible.
func TestSource(t *testing.T) {
	a := listen(t, underlay.Config{Source: netip.MustParseAddr("127.0.0.9")})
	b := listen(t, underlay.Config{})
	one := func(to string) netip.AddrPort {
		if _, err := a.WriteBatch([]underlay.Datagram{{Addr: at(b, to), Buf: []byte("x")}}); err != nil {
			t.Fatal(err)
		}
		batch := []underlay.Datagram{{Buf: make([]byte, 10)}}
		if _, err := underlaytest.Read(b, batch); err != nil {
			t.Fatal(err)
		}
		return batch[0].Addr
	}
	if got, want := one("127.0.0.1"), at(a, "127.0.0.9"); got != want {
		t.Errorf("came from %s, want %s", got, want)
	}
	if hasIPv6() {
		if got, want := one("::1"), at(a, "::1"); got != want {
			t.Errorf("of the other family came from %s, want %s", got, want)
		}
	}
	a.SetSource(netip.MustParseAddr("127.0.0.10"))
	if got, want := one("127.0.0.1"), at(a, "127.0.0.10"); got != want {
		t.Errorf("after SetSource came from %s, want %s", got, want)
	}
	a.SetSource(netip.Addr{})
	if got, want := one("127.0.0.1"), at(a, "127.0.0.1"); got != want {
		t.Errorf("by the routes came from %s, want %s", got, want)
	}
	if _, err := underlay.Listen(underlay.Config{Source: netip.MustParseAddr("192.0.2.1")}); !errors.Is(err, underlay.ErrSource) {
		t.Errorf("foreign source: %v, want ErrSource", err)
	}
}

// TestSourceIPv6: the kernel accepts the control message of IPv6.
func TestSourceIPv6(t *testing.T) {
	if !hasIPv6() {
		t.Skip("the host has no IPv6")
	}
	a, b := listen(t, underlay.Config{Source: netip.MustParseAddr("::1")}), listen(t, underlay.Config{})
	for _, ip := range []string{"::1", "127.0.0.1"} {
		if n, err := a.WriteBatch([]underlay.Datagram{{Addr: at(b, ip), Buf: []byte("x")}}); n != 1 || err != nil {
			t.Errorf("to %s: %d, %v", ip, n, err)
		}
	}
}

// TestRefused: a closed port at the other end stops neither direction.
func TestRefused(t *testing.T) {
	a, gone, b := listen(t, underlay.Config{}), listen(t, underlay.Config{}), listen(t, underlay.Config{})
	gone.Close()
	for range 3 {
		batch := []underlay.Datagram{{Addr: at(gone, "127.0.0.1"), Buf: []byte("x")}, {Addr: at(b, "127.0.0.1"), Buf: []byte("y")}}
		if _, err := a.WriteBatch(batch); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.WriteBatch([]underlay.Datagram{{Addr: at(a, "127.0.0.1"), Buf: []byte("z")}}); err != nil {
		t.Fatal(err)
	}
	batch := []underlay.Datagram{{Buf: make([]byte, 10)}}
	if n, err := underlaytest.Read(a, batch); n != 1 || err != nil || string(batch[0].Buf) != "z" {
		t.Errorf("ReadBatch = %d, %v, %q", n, err, batch[0].Buf)
	}
}

// TestMergedTOS: the kernel of the receiver merges datagrams of one TOS, and no others. Single datagrams cross a link; the
// receiver merges them (GRO).
func TestMergedTOS(t *testing.T) {
	hostA, hostB := twoHosts(t)
	// A veth pair merges only what its other end does not claim to segment (veth_skb_is_eligible_for_gro), and by itself only
	// datagrams that arrive at one instant.
	for path, set := range map[string][2]uint32{hostA: {unix.ETHTOOL_STSO, 0}, hostB: {unix.ETHTOOL_SGRO, 1}} {
		if err := ns.WithNetNSPath(path, func(ns.NetNS) error { return ethtool("wul0", set) }); err != nil {
			t.Fatal(err)
		}
	}
	for file, value := range map[string]string{"gro_flush_timeout": "1000000", "napi_defer_hard_irqs": "10"} {
		cmd := exec.CommandContext(t.Context(), "ip", "netns", "exec", filepath.Base(hostB), "tee", "/sys/class/net/wul0/"+file)
		cmd.Stdin = strings.NewReader(value)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", file, err, out)
		}
	}
	for name, ips := range map[string][2]string{"IPv4": {"10.77.1.1", "10.77.1.2"}, "IPv6": {"fd77::1", "fd77::2"}} {
		t.Run(name, func(t *testing.T) {
			a, b := listenIn(t, hostA, underlay.Config{NoGSO: true}), listenIn(t, hostB, underlay.Config{})
			var batch []underlay.Datagram
			const runs, length = 25, 8 // fewer than the 256 packets that a veth pair holds
			for n := range runs * length {
				tos := uint8(n / length % 4) // a new one after each run
				batch = append(batch, underlay.Datagram{Addr: at(b, ips[1]), Buf: []byte{byte(n >> 8), byte(n), tos}, TOS: tos})
			}
			if _, err := a.WriteBatch(batch); err != nil {
				t.Fatal(err)
			}
			in := make([]underlay.Datagram, 8)
			for got := 0; got < len(batch); {
				for i := range in {
					in[i].Buf = make([]byte, 1<<16)
				}
				n, err := b.ReadBatch(in)
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range in[:n] {
					for ; len(d.Buf) > 0; d.Buf = d.Buf[3:] {
						if d.Buf[2] != d.TOS {
							t.Errorf("a datagram with TOS %d arrived with %d", d.Buf[2], d.TOS)
						}
						got++
					}
				}
			}
			if s := b.Stats(); s.ReceiveMessages == s.ReceiveDatagrams {
				t.Error("nothing was merged")
			} else {
				t.Logf("%d datagrams in %d messages", s.ReceiveDatagrams, s.ReceiveMessages)
			}
		})
	}
}

// ethtool sets one of the legacy settings of an interface (struct ethtool_value of linux/ethtool.h).
func ethtool(name string, value [2]uint32) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	var request struct { // struct ifreq
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:], name)
	request.data = unsafe.Pointer(&value)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request))); errno != 0 {
		return errno
	}
	return nil
}
