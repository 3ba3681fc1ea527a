package toobig

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/tap/taptest"
)

// host is the kernel as host A on the overlay, and the other end of its link, where the test plays host B.
type host struct {
	*testing.T
	veth netlink.Link
	link *taptest.Socket
}

func newHost(t *testing.T) *host {
	t.Helper()
	taptest.InNamespace(t)
	veth := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "a", HardwareAddr: macA[:], MTU: 1500}, PeerName: "b", PeerHardwareAddr: macB[:]}
	if err := netlink.LinkAdd(veth); err != nil {
		t.Fatal(err)
	}
	b, err := netlink.LinkByName("b")
	if err != nil {
		t.Fatal(err)
	}
	bringUp(t, veth, b)
	routes, done := make(chan netlink.RouteUpdate, 64), make(chan struct{})
	defer close(done)
	if err := netlink.RouteSubscribe(routes, done); err != nil {
		t.Fatal(err)
	}
	for _, ends := range [][2]netip.Addr{{ip4A, ip4B}, {ip6A, ip6B}} {
		own := &net.IPNet{IP: ends[0].AsSlice(), Mask: net.CIDRMask(ends[0].BitLen()-8, ends[0].BitLen())}
		if err := netlink.AddrAdd(veth, &netlink.Addr{IPNet: own, Flags: unix.IFA_F_NODAD}); err != nil {
			t.Fatal(err)
		}
		if err := netlink.NeighSet(&netlink.Neigh{
			LinkIndex: veth.Attrs().Index, IP: ends[1].AsSlice(), HardwareAddr: macB[:], State: netlink.NUD_PERMANENT,
		}); err != nil {
			t.Fatal(err)
		}
	}
	wait(t, routes, func(u netlink.RouteUpdate) bool { // an IPv6 address is the host's own some time after it was added
		return u.Type == unix.RTM_NEWROUTE && u.Route.Type == unix.RTN_LOCAL && u.Dst != nil && u.Dst.IP.Equal(ip6A.AsSlice())
	})
	return &host{T: t, veth: veth, link: taptest.NewSocket(t, "b")}
}

// bringUp sets links up and waits until they carry frames, which takes the kernel some time.
func bringUp(t *testing.T, links ...netlink.Link) {
	t.Helper()
	updates, done := make(chan netlink.LinkUpdate, 16), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribe(updates, done); err != nil {
		t.Fatal(err)
	}
	for _, link := range links {
		if err := netlink.LinkSetUp(link); err != nil {
			t.Fatal(err)
		}
	}
	up := map[int]bool{}
	wait(t, updates, func(u netlink.LinkUpdate) bool {
		if u.Attrs().OperState == netlink.OperUp {
			up[u.Attrs().Index] = true
		}
		return len(up) == len(links)
	})
}

// wait waits for the first update that match accepts.
func wait[U any](t *testing.T, updates <-chan U, match func(U) bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for {
		select {
		case u := <-updates:
			if match(u) {
				return
			}
		case <-ctx.Done():
			t.Fatal("the kernel does not say that it is ready")
		}
	}
}

// receive returns the next frame from A to B that match accepts.
func (h *host) receive(match func(gopacket.Packet) bool) ([]byte, gopacket.Packet) {
	h.Helper()
	ctx, cancel := context.WithTimeout(h.Context(), 10*time.Second)
	defer cancel()
	for {
		frame, err := h.link.Receive(ctx)
		if err != nil {
			h.Fatal(err)
		}
		got := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default)
		if ether.Destination(frame) == macB && match(got) {
			return frame, got
		}
	}
}

// answer sends A the reply to frame.
func (h *host) answer(frame []byte, mtu int) {
	h.Helper()
	reply, ok := Reply(frame, mtu)
	if !ok {
		h.Fatalf("no reply to %x", frame[:54])
	}
	if err := h.link.Send(reply); err != nil {
		h.Fatal(err)
	}
}

// families are the differences between IPv4 and IPv6.
var families = []struct {
	name                            string
	domain, level, getMTU, discover int
	to                              unix.Sockaddr
	ethernet                        layers.EthernetType
	network                         func() gopacket.NetworkLayer
}{
	{
		"ipv4", unix.AF_INET, unix.IPPROTO_IP, unix.IP_MTU, unix.IP_MTU_DISCOVER,
		&unix.SockaddrInet4{Port: 2000, Addr: ip4B.As4()}, layers.EthernetTypeIPv4,
		func() gopacket.NetworkLayer {
			ip := ipv4(layers.IPProtocolTCP)
			ip.SrcIP, ip.DstIP = ip.DstIP, ip.SrcIP
			return ip
		},
	},
	{
		"ipv6", unix.AF_INET6, unix.IPPROTO_IPV6, unix.IPV6_MTU, unix.IPV6_MTU_DISCOVER,
		&unix.SockaddrInet6{Port: 2000, Addr: ip6B.As16()}, layers.EthernetTypeIPv6,
		func() gopacket.NetworkLayer {
			ip := ipv6(layers.IPProtocolTCP)
			ip.SrcIP, ip.DstIP = ip.DstIP, ip.SrcIP
			return ip
		},
	},
}

// TestKernelUDP: a host learns the MTU from the reply to a datagram that was too large, and its next attempt fails.
func TestKernelUDP(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			h := newHost(t)
			fd, err := unix.Socket(f.domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unix.SetsockoptInt(fd, f.level, f.discover, unix.IP_PMTUDISC_DO); err != nil {
				t.Fatal(err)
			}
			if err := unix.Connect(fd, f.to); err != nil {
				t.Fatal(err)
			}
			if _, err := unix.Write(fd, pattern(1400)); err != nil {
				t.Fatal(err)
			}
			frame, _ := h.receive(func(p gopacket.Packet) bool { return p.Layer(layers.LayerTypeUDP) != nil })
			h.answer(frame, 1333)
			// A veth delivers in the softirq of the sender: the host has the reply when the send returns.
			if mtu, err := unix.GetsockoptInt(fd, f.level, f.getMTU); err != nil || mtu != 1333 {
				t.Errorf("the host has learned %d, %v", mtu, err)
			}
			left, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
			if err != nil || syscall.Errno(left) != unix.EMSGSIZE {
				t.Errorf("the message has left %v, %v", syscall.Errno(left), err)
			}
			if _, err := unix.Write(fd, pattern(1400)); !errors.Is(err, unix.EMSGSIZE) {
				t.Errorf("the next one: %v", err)
			}
			if _, err := unix.Write(fd, pattern(1200)); err != nil {
				t.Errorf("a shorter one: %v", err)
			}
		})
	}
}

// TestKernelTCP: a host sends a superframe with segments that are too long, receives the reply, and sends the same
// bytes again in shorter segments.
func TestKernelTCP(t *testing.T) {
	for _, f := range families {
		t.Run(f.name, func(t *testing.T) {
			h := newHost(t)
			fd, err := unix.Socket(f.domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			if err := unix.Connect(fd, f.to); !errors.Is(err, unix.EINPROGRESS) {
				t.Fatal(err)
			}
			segment := func(match func(*layers.TCP) bool) ([]byte, *layers.TCP) {
				frame, got := h.receive(func(p gopacket.Packet) bool {
					tcp, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
					return ok && match(tcp)
				})
				return frame, got.Layer(layers.LayerTypeTCP).(*layers.TCP)
			}
			_, syn := segment(func(tcp *layers.TCP) bool { return tcp.SYN })
			network := f.network()
			synAck := &layers.TCP{
				SrcPort: syn.DstPort, DstPort: syn.SrcPort, Seq: 5000, Ack: syn.Seq + 1, SYN: true, ACK: true, Window: 65535,
				Options: []layers.TCPOption{{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: []byte{0x05, 0xa0}}},
			}
			_ = synAck.SetNetworkLayerForChecksum(network) // it is IP
			if err := h.link.Send(serialize(t, &layers.Ethernet{SrcMAC: macB[:], DstMAC: macA[:], EthernetType: f.ethernet},
				network.(gopacket.SerializableLayer), synAck)); err != nil {
				t.Fatal(err)
			}
			segment(func(tcp *layers.TCP) bool { return !tcp.SYN && tcp.ACK })
			if n, err := unix.Write(fd, pattern(9000)); n != 9000 {
				t.Fatal(n, err)
			}
			frame, _ := segment(func(tcp *layers.TCP) bool { return tcp.Seq == syn.Seq+1 && len(tcp.Payload) > 0 })
			if len(frame) < 3000 {
				t.Errorf("%d bytes: not a superframe", len(frame))
			}
			// From here on the kernel cuts superframes before it sends them, so that the test sees their segments.
			if err := netlink.LinkSetGSOMaxSegs(h.veth, 1); err != nil {
				t.Fatal(err)
			}
			h.answer(frame[:1514], 1333)
			if mtu, err := unix.GetsockoptInt(fd, f.level, f.getMTU); err != nil || mtu != 1333 {
				t.Errorf("the host has learned %d, %v", mtu, err)
			}
			again, _ := segment(func(tcp *layers.TCP) bool { return tcp.Seq == syn.Seq+1 && len(tcp.Payload) > 0 })
			if len(again) != 1333+ether.HeaderLen {
				t.Errorf("sent again: %d bytes", len(again))
			}
		})
	}
}
