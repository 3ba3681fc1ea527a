package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/nettest/cluster"
)

// Ports of nodes that run with the default ones.
const (
	dataPort   = 6784
	kernelPort = 6785
)

// capture gets everything that leaves or enters a host by the underlay. It waits in the kernel until packets takes it,
// so that nothing has to run beside the test.
type capture struct {
	fd   int
	host netip.Addr
}

// captureBytes is what may wait in the kernel. Each packet counts with all the memory that it lies in.
const captureBytes = 256 << 20

// captureUnderlay starts a capture on each node's host; they end with the test.
func captureUnderlay(t *testing.T, nodes ...*cluster.Node) []*capture {
	t.Helper()
	captures := make([]*capture, 0, len(nodes))
	for _, n := range nodes {
		c := &capture{host: n.Addr()}
		if err := n.Space.Do(func() error { return c.open("eth0") }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = unix.Close(c.fd) })
		captures = append(captures, c)
	}
	return captures
}

func (c *capture) open(ifname string) error {
	link, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	// Of no protocol, it gets nothing before it is bound to its one interface.
	c.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	all := uint16(unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8)
	return errors.Join(
		unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, captureBytes),
		unix.Bind(c.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}),
	)
}

// packet is an Ethernet frame on the underlay.
type packet struct {
	outgoing bool // from the host on which it was captured
	frame    []byte
}

// packets returns what was captured since the last call, all of it: where the kernel had no room for a packet the test ends.
func (c *capture) packets(t *testing.T) []packet {
	t.Helper()
	var all []packet
	buf := make([]byte, 1<<17)
	for {
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		if errors.Is(err, unix.EAGAIN) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		link, ok := from.(*unix.SockaddrLinklayer)
		all = append(all, packet{ok && link.Pkttype == unix.PACKET_OUTGOING, bytes.Clone(buf[:n])})
	}
	stats, err := unix.GetsockoptTpacketStats(c.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS)
	if err != nil || stats.Drops > 0 {
		t.Fatalf("the capture at %s is not whole: %+v, %v", c.host, stats, err)
	}
	return all
}

// allPackets returns what was captured on all hosts.
func allPackets(t *testing.T, captures []*capture) []packet {
	t.Helper()
	var all []packet
	for _, c := range captures {
		all = append(all, c.packets(t)...)
	}
	return all
}

// datagram is a UDP datagram on the underlay.
type datagram struct {
	from, to netip.AddrPort
	payload  []byte
}

// datagrams returns the UDP datagrams among packets that go to a port.
func datagrams(packets []packet, port uint16) []datagram {
	var list []datagram
	for _, p := range packets {
		if d, ok := p.udp(); ok && d.to.Port() == port {
			list = append(list, d)
		}
	}
	return list
}

// udp returns the datagram in a packet. Only the first of an IPv4 packet's fragments has one, and no IPv6 extension header
// is understood.
func (p packet) udp() (d datagram, ok bool) {
	if len(p.frame) < 14 {
		return datagram{}, false
	}
	ip := p.frame[14:]
	var from, to, udp []byte
	switch etherType := binary.BigEndian.Uint16(p.frame[12:]); {
	case etherType == unix.ETH_P_IP && len(ip) >= 20 && ip[9] == unix.IPPROTO_UDP && binary.BigEndian.Uint16(ip[6:])&0x1fff == 0:
		from, to, udp = ip[12:16], ip[16:20], ip[min(int(ip[0]&15)*4, len(ip)):]
	case etherType == unix.ETH_P_IPV6 && len(ip) >= 40 && ip[6] == unix.IPPROTO_UDP:
		from, to, udp = ip[8:24], ip[24:40], ip[40:]
	}
	if len(udp) < 8 {
		return datagram{}, false
	}
	end := int(binary.BigEndian.Uint16(udp[4:])) // behind it a short frame is padded
	if end < 8 || end > len(udp) {
		end = len(udp)
	}
	return datagram{endpoint(from, udp[0:]), endpoint(to, udp[2:]), udp[8:end]}, true
}

func endpoint(addr, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

// byType counts datagrams to the data port by their first byte: the protocol version and the type.
func byType(packets []packet) map[byte]int {
	count := map[byte]int{}
	for _, d := range datagrams(packets, dataPort) {
		if len(d.payload) > 0 {
			count[d.payload[0]]++
		}
	}
	return count
}

// marks are bytes that show that somebody can read what should be sealed, each under what it is.
type marks map[string][]byte

// in counts the packets in which each mark is found.
func (m marks) in(packets []packet) map[string]int {
	found := map[string]int{}
	for what, mark := range m {
		for _, p := range packets {
			if bytes.Contains(p.frame, mark) {
				found[what]++
			}
		}
	}
	return found
}
