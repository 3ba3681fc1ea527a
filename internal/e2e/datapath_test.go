package e2e

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// modes are the modes of the userspace path, with the flags of the nodes. All must carry all traffic.
var modes = []struct {
	name string
	args []string
}{
	{"offload", []string{"--datapath", "userspace"}},
	{"no offload", []string{"--datapath", "userspace", "--offload", "off"}},
	{"one queue", []string{"--datapath", "userspace", "--queues", "1"}},
	{"four queues", []string{"--datapath", "userspace", "--queues", "4"}},
}

// TestTransfers: TCP streams arrive unchanged, in both directions at the same time, in every mode of the path.
func TestTransfers(t *testing.T) {
	for _, mode := range modes {
		t.Run(mode.name, func(t *testing.T) {
			_, pods := pair(t, mode.args...)
			transferBoth(t, pods, 64<<20)
		})
	}
}

// TestMixedModes: a node without offloads and a node with offloads work together.
func TestMixedModes(t *testing.T) {
	nodes := newNodes(t, "a", "b")
	up(t, nodes[0], "--datapath", "userspace", nodes[1].Addr().String())
	up(t, nodes[1], "--datapath", "userspace", "--offload", "off", nodes[0].Addr().String())
	waitReady(t, nodes)
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p")}
	pods[0].reaches(t, pods[1].addr)
	transferBoth(t, pods, 64<<20)
}

// TestTransfersWithLoss: a lost datagram loses one segment only, and the stream arrives unchanged. The underlay splits what
// the nodes send into single datagrams, as a physical link does, and drops some of them.
func TestTransfersWithLoss(t *testing.T) {
	for _, perMille := range []int{1, 10, 50} {
		t.Run(fmt.Sprintf("%d of 1000", perMille), func(t *testing.T) {
			nodes, pods := pair(t, "--datapath", "userspace")
			for _, n := range nodes {
				labtest.Run(t, n.Space, "ip", "link", "set", "dev", "eth0", "gso_max_segs", "1")
				lose(t, n, perMille)
			}
			transferBoth(t, pods, 512<<20)
		})
	}
}

// TestChecksums: every packet that reaches the pod has correct checksums, after the host's kernel has completed partial
// checksums.
func TestChecksums(t *testing.T) {
	nodes, pods := pair(t, "--datapath", "userspace")
	for _, l := range links(t, nodes[1].Host) {
		if len(l) > 5 && l[:5] == "vweft" {
			if err := nodes[1].Space.Do(func() error { return noChecksumOffload(l) }); err != nil {
				t.Fatal(err)
			}
		}
	}
	lose(t, nodes[1], 20) // to receive incomplete superframes, too
	labtest.Run(t, nodes[0].Space, "ip", "link", "set", "dev", "eth0", "gso_max_segs", "1")
	var capture *os.File
	if err := pods[1].Do(func() (err error) { capture, err = openCapture("eth0"); return err }); err != nil {
		t.Fatal(err)
	}
	var seen sync.Map // protocol: *atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		verify(t, capture, &seen)
	}()
	if err := transfer(testContext(t), pods[0], pods[1], 4<<20); err != nil {
		t.Fatal(err)
	}
	sendUDP(t, pods[0], pods[1], 200)
	for protocol, least := range map[string]int64{"tcp": 1000, "udp": 100} {
		labtest.Until(t, patience, func() error {
			if n := countOf(&seen, protocol).Load(); n < least {
				return fmt.Errorf("%d packets of %s arrived", n, protocol)
			}
			return nil
		})
	}
	if err := capture.Close(); err != nil {
		t.Fatal(err)
	}
	<-ended
}

// countOf returns the counter of a protocol.
func countOf(seen *sync.Map, protocol string) *atomic.Int64 {
	n, _ := seen.LoadOrStore(protocol, new(atomic.Int64))
	return n.(*atomic.Int64)
}

// TestStatusShowsOffloads: the status lists the offloads in use, and none with --offload off.
func TestStatusShowsOffloads(t *testing.T) {
	nodes, _ := pair(t)
	got := query[api.Status](t, nodes[0], "status").Offload
	for _, want := range []string{"tso4", "tso6", "gso", "gro"} {
		if !slices.Contains(got, want) {
			t.Errorf("offloads %v lack %s", got, want)
		}
	}
	nodes, _ = pair(t, "--offload", "off")
	if got := query[api.Status](t, nodes[0], "status").Offload; len(got) != 0 {
		t.Errorf("offloads %v although they are off", got)
	}
}

// pair starts two nodes with a pod each, and waits until the first pod reaches the second.
func pair(t *testing.T, args ...string) (nodes []*cluster.Node, pods []*pod) {
	t.Helper()
	nodes = newNodes(t, "a", "b")
	start(t, nodes, args...)
	pods = []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p")}
	pods[0].reaches(t, pods[1].addr)
	return nodes, pods
}

// lose makes the node's host drop some of the datagrams that it receives from other nodes.
func lose(t *testing.T, n *cluster.Node, perMille int) {
	t.Helper()
	for _, command := range []string{
		"add table inet loss",
		"add chain inet loss in { type filter hook input priority 0; }",
		fmt.Sprintf("add rule inet loss in udp dport 6784 numgen random mod 1000 < %d drop", perMille),
	} {
		labtest.Run(t, n.Space, "nft", command)
	}
}

// transferBoth transfers size bytes from each of two pods to the other, at the same time.
func transferBoth(t *testing.T, pods []*pod, size int64) {
	t.Helper()
	errs := make(chan error, 2)
	for i := range pods {
		go func() { errs <- transfer(testContext(t), pods[i], pods[1-i], size) }()
	}
	for range pods {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// transfer sends size random bytes through a TCP connection and compares the hashes of the sent and received data.
func transfer(ctx context.Context, from, to *pod, size int64) error {
	var l net.Listener
	if err := to.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(to.addr, 0).String())
		return err
	}); err != nil {
		return err
	}
	defer func() { _ = l.Close() }()
	var conn net.Conn
	if err := from.Do(func() (err error) {
		conn, err = new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		return err
	}); err != nil {
		return err
	}
	sent, received := sha256.New(), sha256.New()
	done := make(chan error, 1)
	go func() {
		random := io.LimitReader(rand.NewChaCha8([32]byte{1}), size)
		_, err := io.Copy(io.MultiWriter(conn, sent), random)
		done <- errors.Join(err, conn.Close())
	}()
	in, err := l.Accept()
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	deadline, _ := ctx.Deadline()
	_ = in.SetDeadline(deadline)
	_ = conn.SetDeadline(deadline)
	n, err := io.Copy(received, in)
	if err = errors.Join(err, <-done); err != nil {
		return fmt.Errorf("after %d of %d bytes: %w", n, size, err)
	}
	if n != size || string(sent.Sum(nil)) != string(received.Sum(nil)) {
		return fmt.Errorf("%d of %d bytes arrived, and the hash differs", n, size)
	}
	return nil
}

// sendUDP sends runs of datagrams of equal size, which the kernel passes to the node as superframes, and single ones.
func sendUDP(t *testing.T, from, to *pod, runs int) {
	t.Helper()
	conn := dialUDP(t, from, netip.AddrPortFrom(to.addr, 9999))
	raw, err := conn.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	for i := range runs {
		segment := []int{0, 100, 1, 1398}[i%4]
		if err := raw.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, segment); err != nil {
				t.Error(err)
			}
		}); err != nil {
			t.Fatal(err)
		}
		// No socket listens, so a later write may fail.
		_, _ = conn.Write(make([]byte, min(max(segment, 50)*20, max(segment, 1)*60)+i%7))
	}
}

// noChecksumOffload makes the kernel complete all checksums before the interface sends a packet (ethtool -K tx off).
func noChecksumOffload(ifname string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	return ethtool(fd, ifname, 0x17 /* ETHTOOL_STXCSUM */, 0)
}

// openCapture returns a packet socket that receives all packets that arrive at the interface.
func openCapture(ifname string) (*os.File, error) {
	link, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, err
	}
	all := unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "capture"), errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: link.Index}),
	)
}

// verify checks the packets of a capture until it is closed, and counts them by protocol in seen.
func verify(t *testing.T, capture *os.File, seen *sync.Map) {
	buf := make([]byte, 1<<17)
	for wrong := 0; ; {
		n, err := capture.Read(buf)
		if err != nil {
			return
		}
		protocol, err := checkPacket(buf[:n])
		countOf(seen, protocol).Add(1)
		if err != nil && wrong < 3 {
			wrong++
			t.Errorf("a packet of %d bytes: %v: %x", n, err, buf[:min(n, 80)])
		}
	}
}

// checkPacket checks lengths and checksums of a frame with TCP or UDP over IPv4.
func checkPacket(f []byte) (protocol string, err error) {
	if len(f) < 34 || binary.BigEndian.Uint16(f[12:]) != unix.ETH_P_IP {
		return "other", nil
	}
	ip := f[14:]
	header, total := int(ip[0]&15)*4, int(binary.BigEndian.Uint16(ip[2:]))
	if total > len(ip) || total < header || (total < len(ip) && len(f) > 60) {
		return "ip", fmt.Errorf("total length %d of %d bytes", total, len(ip))
	}
	if onesSum(0, ip[:header]) != 0xffff {
		return "ip", errors.New("checksum of the IPv4 header")
	}
	payload := ip[header:total]
	pseudo := onesSum(uint32(ip[9])+uint32(len(payload)), ip[12:20])
	switch ip[9] {
	case unix.IPPROTO_TCP:
		protocol = "tcp"
	case unix.IPPROTO_UDP:
		protocol = "udp"
		if int(binary.BigEndian.Uint16(payload[4:])) != len(payload) {
			return protocol, errors.New("length of the UDP header")
		}
	default:
		return "other", nil
	}
	if onesSum(pseudo, payload) != 0xffff {
		return protocol, errors.New("checksum")
	}
	return protocol, nil
}

// onesSum returns the ones' complement sum (RFC 1071) of sum and the 16-bit words of b.
func onesSum(sum uint32, b []byte) uint32 {
	for ; len(b) > 1; b = b[2:] {
		sum += uint32(b[0])<<8 | uint32(b[1])
	}
	if len(b) > 0 {
		sum += uint32(b[0]) << 8
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return sum
}
