package e2e

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
)

// Default ports of the datapath and of the kernel's VXLAN.
const (
	dataPort   = 6784
	kernelPort = 6785
)

// capture captures all packets that a host sends to or receives from the underlay. The kernel buffers them until packets
// reads them, so that the test needs no extra goroutine.
type capture struct {
	fd   int
	host netip.Addr
}

// captureBytes is the size of the kernel's buffer. Each packet counts with all memory that it occupies.
const captureBytes = 256 << 20

// captureUnderlay starts a capture on the host of each node. The captures end with the test.
func captureUnderlay(t *testing.T, nodes ...*cluster.Node) []*capture {
	t.Helper()
	captures := make([]*capture, 0, len(nodes))
	for _, n := range nodes {
		captures = append(captures, captureOn(t, n.Space, n.Addr()))
	}
	return captures
}

// captureOn starts a capture on the interface eth0 of a namespace that has the address host. It ends with the test.
func captureOn(t *testing.T, s *nettest.Space, host netip.Addr) *capture {
	t.Helper()
	c := &capture{host: host}
	if err := s.Do(func() error { return c.open("eth0") }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(c.fd) })
	return c
}

func (c *capture) open(ifname string) error {
	link, err := net.InterfaceByName(ifname)
	if err != nil {
		return err
	}
	// Without a protocol, the socket receives nothing until it is bound to the interface.
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
	outgoing bool // sent by the host on which it was captured
	frame    []byte
}

// packets returns all packets that were captured since the last call. If the kernel had no room for a packet, it ends the
// test.
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
		t.Fatalf("the capture at %s is incomplete: %+v, %v", c.host, stats, err)
	}
	return all
}

// allPackets returns the packets of all captures.
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

// datagrams returns the UDP datagrams among packets with the given destination port.
func datagrams(packets []packet, port uint16) []datagram {
	var list []datagram
	for _, p := range packets {
		if d, ok := p.udp(); ok && d.to.Port() == port {
			list = append(list, d)
		}
	}
	return list
}

// udp returns the datagram in a packet, and false if there is none. Of fragmented IPv4 packets, only the first fragment
// counts. Packets with IPv6 extension headers are ignored.
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
	end := int(binary.BigEndian.Uint16(udp[4:])) // short frames have padding after it
	if end < 8 || end > len(udp) {
		end = len(udp)
	}
	return datagram{endpoint(from, udp[0:]), endpoint(to, udp[2:]), udp[8:end]}, true
}

func endpoint(addr, port []byte) netip.AddrPort {
	a, _ := netip.AddrFromSlice(addr)
	return netip.AddrPortFrom(a, binary.BigEndian.Uint16(port))
}

// byType counts datagrams to the data port by their first byte, which is the protocol version and the message type.
func byType(packets []packet) map[byte]int {
	count := map[byte]int{}
	for _, d := range datagrams(packets, dataPort) {
		if len(d.payload) > 0 {
			count[d.payload[0]]++
		}
	}
	return count
}

// marks are byte strings that must not occur in encrypted traffic, by their description.
type marks map[string][]byte

// in counts the packets that contain each mark.
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
