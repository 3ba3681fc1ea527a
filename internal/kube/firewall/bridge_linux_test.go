package firewall_test

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/kube/firewall"
	"weft/internal/kube/policy"
	"weft/internal/kube/policy/policytest"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// uplink is the port of the frames that come from other nodes.
const uplink = "uplink"

// network is a host with a bridge. The other ends of the bridge's ports are in another namespace, each with a raw socket.
type network struct {
	*nettest.Host
	pods    *nettest.Pod
	fw      *firewall.NFT
	sockets map[string]int // by port
	serial  uint16
}

func newNetwork(t *testing.T) *network {
	t.Helper()
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "bridge")
	n := &network{Host: h, pods: labtest.AddPod(t, h, "pods"), sockets: map[string]int{}, serial: 1024}
	for _, line := range []string{
		"ip link add weave type bridge mcast_snooping 0", "ip addr add 10.32.100.1/12 dev weave", "ip link set weave up",
		"sysctl -qw net.bridge.bridge-nf-call-iptables=1 net.bridge.bridge-nf-call-ip6tables=1 net.ipv4.ip_forward=1",
	} {
		labtest.Run(t, h.Space, strings.Fields(line)...)
	}
	labtest.Run(t, n.pods.Space, "sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
	n.addPort(t, uplink)
	n.do(t, func() (err error) { n.fw, err = firewall.New(t.Context()); return err })
	t.Cleanup(func() { _ = n.fw.Close() })
	return n
}

func (n *network) do(t *testing.T, f func() error) {
	t.Helper()
	if err := n.Do(f); err != nil {
		t.Fatal(err)
	}
}

func (n *network) apply(t *testing.T, c *policy.Cluster) {
	t.Helper()
	n.do(t, func() error { return n.fw.Apply(t.Context(), policy.Compile(c)) })
}

// addPort adds a port to the bridge, unless it exists.
func (n *network) addPort(t *testing.T, name string) {
	t.Helper()
	if _, exists := n.sockets[name]; exists {
		return
	}
	for _, line := range []string{
		"ip link add " + name + " type veth peer name " + name + " netns " + n.pods.Name(),
		"ip link set " + name + " master weave", "ip link set " + name + " up",
	} {
		labtest.Run(t, n.Space, strings.Fields(line)...)
	}
	labtest.Run(t, n.pods.Space, "ip", "link", "set", name, "up")
	if err := n.pods.Do(func() error {
		link, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		n.sockets[name], err = openPacket(link.Index)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(n.sockets[name]) })
}

// openPacket returns a raw socket for the frames that arrive at an interface.
func openPacket(index int) (int, error) {
	all := int(binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL)))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return 0, err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return 0, err
	}
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: uint16(all), Ifindex: index})
}

// frameBytes returns the bytes of a frame with a serial number.
func frameBytes(t *testing.T, f policytest.Frame, serial uint16) []byte {
	t.Helper()
	src, dst := ether.Addr{2, 0xee, 0, 0, 0, 1}, ether.Addr{2, 0xee, 0, 0, 0, 2} // dst: unknown to the bridge, which floods
	if f.From != nil {
		src = ether.FromIP(f.From.IPs[0])
	}
	if f.Group {
		dst = ether.Broadcast
	}
	b := append(dst[:], src[:]...)
	if f.Tagged {
		b = append(b, 0x81, 0, 0, 0) // VLAN 0
	}
	b = binary.BigEndian.AppendUint16(b, f.EtherType)
	switch {
	case f.EtherType == ether.TypeARP:
		arp := make([]byte, 46)
		copy(arp, []byte{0, 1, 8, 0, 6, 4, 0, 1, src[0], src[1], src[2], src[3], src[4], src[5], 10, 47, 0, 1, 0, 0, 0, 0})
		binary.BigEndian.PutUint16(arp[22:], serial)
		return append(b, arp...)
	case f.EtherType != ether.TypeIPv4 && f.EtherType != ether.TypeIPv6:
		return append(binary.BigEndian.AppendUint16(b, serial), make([]byte, 44)...)
	case f.Protocol == policytest.NeighborDiscovery:
		return append(b, solicitation(t, f.Packet, serial)...)
	}
	return append(b, bytesOf(t, f.Packet, serial)...)
}

// solicitation returns a neighbor solicitation for an address with a serial number.
func solicitation(t *testing.T, p policytest.Packet, serial uint16) []byte {
	t.Helper()
	ip := &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: layers.IPProtocolICMPv6, SrcIP: p.Src.AsSlice(), DstIP: p.Dst.AsSlice()}
	icmp := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeNeighborSolicitation, 0)}
	_ = icmp.SetNetworkLayerForChecksum(ip)
	target := netip.AddrFrom16([16]byte{0: 0xfd, 1: 0x99, 14: byte(serial >> 8), 15: byte(serial)})
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		ip, icmp, &layers.ICMPv6NeighborSolicitation{TargetAddress: target.AsSlice()}); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// frameSerial returns the serial number of a frame without its tag.
func frameSerial(b []byte) (serial uint16, ok bool) {
	if len(b) < 60 {
		b = append(b, make([]byte, 60-len(b))...)
	}
	body := b[ether.HeaderLen:]
	switch kind := ether.Type(b); kind {
	case ether.TypeARP:
		return binary.BigEndian.Uint16(body[22:]), true
	case ether.TypeIPv4, ether.TypeIPv6:
		if kind == ether.TypeIPv6 && body[6] == 58 && body[40] == layers.ICMPv6TypeNeighborSolicitation {
			return binary.BigEndian.Uint16(body[62:]), true
		}
		return serialOf(body)
	default:
		return binary.BigEndian.Uint16(body), true
	}
}

// deliver sends frames and returns, for each, the ports that it reached.
func (n *network) deliver(t *testing.T, frames []policytest.Frame) []map[string]bool {
	t.Helper()
	out := make([]map[string]bool, len(frames))
	first := n.serial
	end := policytest.Frame{EtherType: ether.TypeARP, Group: true} // passes in any case
	n.onOneCPU(t, func() error {
		for i, f := range append(frames, end) {
			port := uplink
			if f.From != nil {
				port = f.From.Link
			}
			if i < len(frames) {
				out[i] = map[string]bool{}
			}
			if _, err := unix.Write(n.sockets[port], frameBytes(t, f, n.serial)); err != nil {
				return fmt.Errorf("%s: %w", port, err)
			}
			n.serial++
		}
		return nil
	})
	for port, fd := range n.sockets {
		if port == uplink {
			n.drain(fd)
			continue
		}
		labtest.Until(t, 10*time.Second, func() error {
			buf := make([]byte, 2048)
			for {
				size, err := unix.Read(fd, buf)
				if err != nil {
					return fmt.Errorf("%s did not get the last frame: %w", port, err)
				}
				serial, ok := frameSerial(slices.Clone(buf[:size]))
				i := int(serial - first)
				switch {
				case !ok || serial < first:
				case i == len(frames):
					return nil
				case i < len(frames):
					out[i][port] = true
				}
			}
		})
	}
	return out
}

func (n *network) drain(fd int) {
	buf := make([]byte, 2048)
	for {
		if _, err := unix.Read(fd, buf); err != nil {
			return
		}
	}
}

// onOneCPU calls f on a thread that stays on one CPU, so that frames arrive in their order.
func (n *network) onOneCPU(t *testing.T, f func() error) {
	t.Helper()
	if err := n.pods.Do(func() error {
		var before, one unix.CPUSet
		if err := unix.SchedGetaffinity(0, &before); err != nil {
			return err
		}
		for cpu := 0; one.Count() == 0; cpu++ {
			if before.IsSet(cpu) {
				one.Set(cpu)
			}
		}
		if err := unix.SchedSetaffinity(0, &one); err != nil {
			return err
		}
		defer func() { _ = unix.SchedSetaffinity(0, &before) }()
		return f()
	}); err != nil {
		t.Fatal(err)
	}
}

// TestModelOfFrames: each port of a real bridge gets the frames that the model says, in random clusters that follow each other.
func TestModelOfFrames(t *testing.T) {
	n, follow := newNetwork(t), newFollow()
	const seeds, each = 60, 150
	delivered, dropped := 0, 0
	for seed := range uint64(seeds) {
		n.serial = 1024 // ports are unique within a seed only
		random := policytest.NewRandom(2_000_000 + seed)
		c := random.ClusterWithPolicies(5)
		for _, p := range c.Pods {
			if p.Link != "" {
				n.addPort(t, p.Link)
			}
		}
		n.do(t, func() error { return follow.enforce(t.Context(), n.fw, c) })
		frames := make([]policytest.Frame, each)
		for i := range frames {
			frames[i] = random.Frame(c)
		}
		for i, ports := range n.deliver(t, frames) {
			for _, to := range c.Pods {
				if to.Link == "" || to == frames[i].From {
					continue
				}
				want := policytest.Delivered(c, frames[i], to)
				if want {
					delivered++
				} else {
					dropped++
				}
				if got := ports[to.Link]; got != want {
					from := "uplink"
					if frames[i].From != nil {
						from = frames[i].From.Name
					}
					text, _ := json.MarshalIndent(c, "", " ")
					t.Fatalf("seed %d: frame %d from %s: tagged %v, type %#x, group %v, %+v: reached %s %v, want %v\n%s\n%s\n%s",
						seed, i, from, frames[i].Tagged, frames[i].EtherType, frames[i].Group, frames[i].Packet, to.Name, got, want, text,
						labtest.Run(t, n.Space, "nft", "list", "table", "inet", firewall.Table),
						labtest.Run(t, n.Space, "nft", "list", "table", "bridge", firewall.Table))
				}
			}
		}
	}
	t.Logf("%d delivered, %d dropped", delivered, dropped)
	if delivered < dropped/8 || dropped < delivered/8 {
		t.Errorf("%d frames were delivered and %d dropped: the random clusters test too little", delivered, dropped)
	}
}
