package direct_test

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"weft/internal/ether"
	"weft/internal/nettest/labtest"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/carriertest"
	"weft/router/carrier/direct"
)

const (
	name  = "weftp6783d"
	table = 6783
	group = 6784
)

var overlay = netip.MustParsePrefix("10.32.0.0/12")

// nodes are the nodes of a test; a pod has the address 10.32.0.N, and probes have 10.32.2.N.
type nodes map[peer.ID]direct.Node

func (n nodes) View() func(peer.ID) direct.Node { return func(id peer.ID) direct.Node { return n[id] } }

// add adds a host to the nodes.
func (n nodes) add(h *carriertest.Host) {
	pod, probe := netip.MustParseAddr(h.IP), netip.AddrFrom4([4]byte{10, 32, 2, h.ID[0]})
	n[h.ID] = direct.Node{
		Probes: []netip.Addr{probe}, Share: []netip.Prefix{netip.PrefixFrom(pod, 32), netip.PrefixFrom(probe, 32)},
	}
}

// configOf describes the carrier of a host.
func configOf(h *carriertest.Host, n direct.Nodes) direct.Config {
	return direct.Config{
		Bridge: carriertest.Bridge, Uplinks: []string{carriertest.Tap}, Table: table, Group: group, MTU: carriertest.MTU,
		Local: h.Addr, Ranges: []netip.Prefix{overlay}, Self: h.ID, Nodes: n,
	}
}

// network is two hosts with pods that send datagrams to each other.
type network struct {
	*carriertest.HostNetwork
	nodes nodes
}

func newNetwork(t *testing.T, v6 bool) *network {
	t.Helper()
	n := &network{nodes: nodes{}}
	n.HostNetwork = carriertest.Hosts(t, carriertest.Kind{
		Open: func(t *testing.T, h *carriertest.Host) (carrier.Carrier, error) {
			t.Helper()
			return direct.Open(t.Context(), configOf(h, n.nodes))
		},
		Link: name,
		Disturb: func(t *testing.T, h *carriertest.Host) {
			t.Helper()
			labtest.Run(t, h.Space, "nft", "flush ruleset")
			carriertest.IP(t, h.Space, fmt.Sprintf("rule del table %d", table))
			carriertest.IP(t, h.Space, fmt.Sprintf("route flush table %d", table))
		},
	}, v6)
	for _, h := range n.Nodes {
		labtest.Run(t, h.Space, "sysctl", "-qw", "net.ipv4.ip_forward=1")
		n.nodes.add(h)
	}
	return n
}

func (*network) Keeps() bool { return false }

// Broadcast sends a datagram to the other pod.
func (n *network) Broadcast(t *testing.T, node int, content string) {
	t.Helper()
	n.send(t, node, 64, content)
}

func (n *network) send(t *testing.T, node int, ttl uint8, content string) {
	t.Helper()
	from, to := n.Nodes[node], n.Nodes[1-node]
	if err := n.Pods[node].Send(datagram(t, from.PodMAC, to.PodMAC, from.IP, to.IP, ttl, content)); err != nil {
		t.Fatal(err)
	}
}

// datagram returns a frame.
func datagram(t *testing.T, src, dst ether.Addr, from, to string, ttl uint8, content string) []byte {
	t.Helper()
	ip := &layers.IPv4{
		Version: 4, TTL: ttl, Protocol: layers.IPProtocolUDP,
		SrcIP: netip.MustParseAddr(from).AsSlice(), DstIP: netip.MustParseAddr(to).AsSlice(),
	}
	udp := &layers.UDP{SrcPort: 7, DstPort: 7}
	if err := udp.SetNetworkLayerForChecksum(ip); err != nil {
		t.Fatal(err)
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: layers.EthernetTypeIPv4}, ip, udp, gopacket.Payload(content))
	if err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// Next returns the next datagram that arrives. Nothing of a probe must.
func (n *network) Next(t *testing.T, node int) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		f, err := n.Pods[node].Receive(ctx)
		if err != nil {
			t.Fatal(err)
		}
		p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
		ip, ok := p.NetworkLayer().(*layers.IPv4)
		if ok && strings.HasPrefix(ip.DstIP.String(), "10.32.2.") {
			t.Errorf("a pod has seen a probe: %x", f)
		}
		if udp, is := p.TransportLayer().(*layers.UDP); is && ok && udp.DstPort == 7 {
			return string(udp.Payload)
		}
	}
}

// Break has the hosts drop what comes from pods of others.
func (n *network) Break(t *testing.T, on bool) {
	t.Helper()
	line := "delete table inet cut"
	if on {
		line = "add table inet cut; add chain inet cut in { type filter hook prerouting priority -310; };" +
			`add rule inet cut in iifname != "weave" ip saddr 10.32.0.0/12 drop`
	}
	for _, h := range n.Nodes {
		labtest.Run(t, h.Space, "nft", line)
	}
}

// TestCarrier: the carrier passes the suite of all carriers, over IPv4 and over IPv6.
func TestCarrier(t *testing.T) {
	for name, v6 := range map[string]bool{"IPv4": false, "IPv6": true} {
		t.Run(name, func(t *testing.T) {
			carriertest.Run(t, func(t *testing.T) carriertest.Network { return newNetwork(t, v6) })
		})
	}
}
