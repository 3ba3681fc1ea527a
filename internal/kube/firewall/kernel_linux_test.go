package firewall_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/kube/firewall"
	"weft/internal/kube/policy"
	"weft/internal/kube/policy/policytest"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// gateway is a network namespace that forwards packets from one TUN device to another, through the firewall.
type gateway struct {
	*nettest.Host
	fw      *firewall.NFT
	in, out *os.File
	serial  uint16 // of packets, as their source port
}

func newGateway(t testing.TB) *gateway {
	t.Helper()
	g := &gateway{Host: labtest.AddHost(t, labtest.New(t, nettest.Config{}), "gateway"), serial: 1024}
	g.do(t, func() (err error) {
		if g.in, err = openTUN("in0"); err != nil {
			return err
		}
		g.out, err = openTUN("out0")
		return err
	})
	t.Cleanup(func() { _ = errors.Join(g.in.Close(), g.out.Close()) })
	for _, line := range []string{
		"sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1",
		"sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.in0.rp_filter=0 net.ipv4.conf.out0.rp_filter=0",
		"ip link set in0 up", "ip link set out0 up",
		"ip route replace default dev out0", "ip -6 route replace default dev out0 metric 1",
	} {
		labtest.Run(t, g.Space, strings.Fields(line)...)
	}
	g.do(t, func() (err error) { g.fw, err = firewall.New(t.Context()); return err })
	t.Cleanup(func() { _ = g.fw.Close() })
	return g
}

// follow makes a firewall enforce a cluster by the changes since the cluster of the last call. Every tenth call sets all rules.
type follow struct {
	state *policy.State
	last  *policy.Cluster
	calls int
}

func newFollow() *follow { return &follow{state: policy.NewState(), last: &policy.Cluster{}} }

func (f *follow) enforce(ctx context.Context, fw *firewall.NFT, c *policy.Cluster) error {
	policytest.Move(f.state, f.last, c)
	f.last = c
	change := f.state.Update()
	f.calls++
	if f.calls%10 == 1 {
		return fw.Apply(ctx, f.state.Ruleset())
	}
	return fw.Change(ctx, change)
}

func (g *gateway) do(t testing.TB, f func() error) {
	t.Helper()
	if err := g.Do(f); err != nil {
		t.Fatal(err)
	}
}

func (g *gateway) apply(t testing.TB, r *policy.Ruleset) {
	t.Helper()
	g.do(t, func() error { return g.fw.Apply(t.Context(), r) })
}

func (g *gateway) intact(t *testing.T) (ok bool) {
	t.Helper()
	g.do(t, func() (err error) { ok, err = g.fw.Intact(t.Context()); return err })
	return ok
}

func openTUN(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// bytesOf returns the bytes of a packet. port is the client's port, or the ICMP ID.
func bytesOf(t *testing.T, p policytest.Packet, port uint16) []byte {
	t.Helper()
	var ip gopacket.SerializableLayer
	var network gopacket.NetworkLayer
	protocol := map[corev1.Protocol]layers.IPProtocol{
		corev1.ProtocolTCP: layers.IPProtocolTCP, corev1.ProtocolUDP: layers.IPProtocolUDP, corev1.ProtocolSCTP: layers.IPProtocolSCTP,
	}[p.Protocol]
	if p.Src.Is4() {
		if p.Protocol == policytest.ICMP {
			protocol = layers.IPProtocolICMPv4
		}
		l := &layers.IPv4{Version: 4, TTL: 64, Protocol: protocol, SrcIP: p.Src.AsSlice(), DstIP: p.Dst.AsSlice()}
		ip, network = l, l
	} else {
		if p.Protocol == policytest.ICMP {
			protocol = layers.IPProtocolICMPv6
		}
		l := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: protocol, SrcIP: p.Src.AsSlice(), DstIP: p.Dst.AsSlice()}
		ip, network = l, l
	}
	all := []gopacket.SerializableLayer{ip}
	switch p.Protocol {
	case corev1.ProtocolTCP:
		l := &layers.TCP{SrcPort: layers.TCPPort(port), DstPort: layers.TCPPort(p.Port), SYN: true, Window: 1024}
		if p.Open {
			l.SrcPort, l.DstPort, l.SYN, l.ACK = layers.TCPPort(p.SrcPort), layers.TCPPort(port), false, true
		}
		_ = l.SetNetworkLayerForChecksum(network)
		all = append(all, l)
	case corev1.ProtocolUDP:
		l := &layers.UDP{SrcPort: layers.UDPPort(port), DstPort: layers.UDPPort(p.Port)}
		_ = l.SetNetworkLayerForChecksum(network)
		all = append(all, l)
	case corev1.ProtocolSCTP:
		all = append(all, &layers.SCTP{SrcPort: layers.SCTPPort(port), DstPort: layers.SCTPPort(p.Port), VerificationTag: 1},
			&layers.SCTPInit{
				SCTPChunk: layers.SCTPChunk{Type: layers.SCTPChunkTypeInit}, InitiateTag: 1, AdvertisedReceiverWindowCredit: 1500,
				OutboundStreams: 1, InboundStreams: 1, InitialTSN: 1,
			})
	default:
		if p.Src.Is4() {
			all = append(all, &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: port})
			break
		}
		l := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(layers.ICMPv6TypeEchoRequest, 0)}
		_ = l.SetNetworkLayerForChecksum(network)
		all = append(all, l, &layers.ICMPv6Echo{Identifier: port})
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// serialOf returns the client's port, or the ICMP ID, of a forwarded packet.
func serialOf(b []byte) (serial uint16, ok bool) {
	first := gopacket.Decoder(layers.LayerTypeIPv4)
	if b[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	packet := gopacket.NewPacket(b, first, gopacket.Default)
	for _, l := range packet.Layers() {
		switch l := l.(type) {
		case *layers.TCP:
			if !l.SYN {
				return uint16(l.DstPort), true
			}
			return uint16(l.SrcPort), true
		case *layers.UDP:
			return uint16(l.SrcPort), true
		case *layers.SCTP:
			return uint16(l.SrcPort), true
		case *layers.ICMPv4:
			return l.Id, l.TypeCode.Type() == layers.ICMPv4TypeEchoRequest
		case *layers.ICMPv6Echo:
			return l.Identifier, true
		}
	}
	return 0, false
}

// passes sends packets and reports for each whether it was forwarded.
func (g *gateway) passes(t *testing.T, packets []policytest.Packet) []bool {
	t.Helper()
	place := map[uint16]int{}
	passed := make([]bool, len(packets))
	out := make(chan uint16, 2*len(packets)+16)
	end := policytest.Packet{ // not of a pod
		Src: netip.MustParseAddr("192.0.2.1"), Dst: netip.MustParseAddr("192.0.2.2"), Protocol: corev1.ProtocolUDP, Port: 9,
	}
	last := g.serial + uint16(len(packets))
	go func() {
		defer close(out)
		buf := make([]byte, 2048)
		_ = g.out.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			n, err := g.out.Read(buf)
			if err != nil {
				return
			}
			if serial, ok := serialOf(buf[:n]); ok {
				out <- serial
				if serial == last {
					return
				}
			}
		}
	}()
	for i, p := range append(packets, end) {
		place[g.serial] = i
		if _, err := g.in.Write(bytesOf(t, p, g.serial)); err != nil {
			t.Fatal(err)
		}
		g.serial++
	}
	ended := false
	for serial := range out {
		if i, ok := place[serial]; ok && i < len(packets) {
			passed[i] = true
		}
		ended = ended || serial == last
	}
	if !ended {
		t.Fatal("a packet between other addresses was not forwarded")
	}
	return passed
}

// TestModel: the kernel decides about packets as the model does, in random clusters that follow each other in one table.
func TestModel(t *testing.T) {
	g, follow := newGateway(t), newFollow()
	const seeds, each = 60, 150
	for seed := range uint64(seeds) {
		g.serial = 1024 // ports are unique within a seed only
		g.do(t, func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
		random := policytest.NewRandom(1_000_000 + seed)
		c := random.ClusterWithPolicies(5)
		g.do(t, func() error { return follow.enforce(t.Context(), g.fw, c) })
		if !g.intact(t) {
			t.Fatalf("seed %d: not intact after a change", seed)
		}
		packets := make([]policytest.Packet, each)
		for i := range packets {
			packets[i] = random.Packet(c)
		}
		for i, got := range g.passes(t, packets) {
			if want := policytest.Allowed(c, packets[i]); got != want {
				text, _ := json.MarshalIndent(c, "", " ")
				t.Fatalf("seed %d: %+v passed %v, want %v\n%s\n%s", seed, packets[i], got, want, text,
					labtest.Run(t, g.Space, "nft", "list", "table", "inet", firewall.Table))
			}
		}
	}
}

// pair returns a cluster of two pods. The second accepts only TCP to port 80, from the first.
func pair() *policy.Cluster {
	pod := func(name string, last byte) *policy.Pod {
		return &policy.Pod{
			Namespace: "x", Name: name, Labels: policy.Labels{"app": name}, Local: true,
			IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 32, 0, last})}, Link: "vwp" + name,
		}
	}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "np"}}
	np.Spec.PodSelector.MatchLabels = map[string]string{"app": "b"}
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
		PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "a"}},
	}}}}
	return &policy.Cluster{
		Namespaces: map[string]policy.Labels{"x": {}}, Pods: []*policy.Pod{pod("a", 1), pod("b", 2), pod("c", 3)},
		Policies: policy.Policies{Network: []*networkingv1.NetworkPolicy{np}},
	}
}

func tcp(c *policy.Cluster, from, to int) policytest.Packet {
	return policytest.Packet{Src: c.Pods[from].IPs[0], Dst: c.Pods[to].IPs[0], Protocol: corev1.ProtocolTCP, Port: 80}
}

// TestEstablishedFollowsChange: an open connection stops when a changed policy denies it.
func TestEstablishedFollowsChange(t *testing.T) {
	g, c := newGateway(t), pair()
	g.apply(t, policy.Compile(c))
	again := func(p policytest.Packet) bool { // one connection
		g.serial = 2000
		return g.passes(t, []policytest.Packet{p})[0]
	}
	if !again(tcp(c, 0, 1)) {
		t.Fatal("an allowed packet is dropped")
	}
	c.Network[0].Spec.Ingress = nil
	g.apply(t, policy.Compile(c))
	if again(tcp(c, 0, 1)) {
		t.Error("an open connection still passes after a policy denies it")
	}
}

// TestFlushed: Intact reports removed and changed rules, and one Apply restores them.
func TestFlushed(t *testing.T) {
	g, c := newGateway(t), pair()
	r := policy.Compile(c)
	for _, cmd := range []string{
		"nft flush ruleset", "nft delete table inet weft-policy", "nft flush chain inet weft-policy forward",
		"nft delete element inet weft-policy ingress4 { 10.32.0.2 }", "nft add element inet weft-policy self4 { 1.1.1.1 . 1.1.1.1 }",
		"nft delete table bridge weft-policy", "nft flush chain bridge weft-policy forward",
		"nft add element bridge weft-policy pods4 { 1.1.1.1 }",
	} {
		g.apply(t, r)
		labtest.Run(t, g.Space, "nft", "add", "table", "inet", "other") // does not concern weft
		if !g.intact(t) {
			t.Fatal("not intact after Apply")
		}
		labtest.Run(t, g.Space, strings.Fields(cmd)...)
		if g.intact(t) {
			t.Errorf("Intact after %s", cmd)
		}
		g.apply(t, r)
		if got := g.passes(t, []policytest.Packet{tcp(c, 2, 1), tcp(c, 0, 1)}); got[0] || !got[1] {
			t.Errorf("after %s and a new Apply: %v", cmd, got)
		}
	}
	for range 2 {
		g.do(t, func() error { return g.fw.Remove(t.Context()) })
	}
	if got := g.passes(t, []policytest.Packet{tcp(c, 2, 1)}); !got[0] {
		t.Error("packets are dropped after the rules were removed")
	}
}

// TestDropsAreReported: dropped packets are counted and sampled.
func TestDropsAreReported(t *testing.T) {
	g, c := newGateway(t), pair()
	g.apply(t, policy.Compile(c))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	drops := make(chan firewall.Drop, 16)
	done := make(chan error, 1)
	go func() {
		done <- g.Do(func() error { return firewall.NFLog{}.Samples(ctx, func(d firewall.Drop) { drops <- d }) })
	}()
	labtest.Until(t, 5*time.Second, func() error {
		g.passes(t, []policytest.Packet{tcp(c, 2, 1)})
		select {
		case d := <-drops:
			if d.Direction != policy.Ingress || d.Src != c.Pods[2].IPs[0] || d.Dst != c.Pods[1].IPs[0] || d.Protocol != "TCP" || d.DstPort != 80 {
				t.Errorf("sample %+v", d)
			}
			return nil
		default:
			return fmt.Errorf("no sample of a drop")
		}
	})
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	g.do(t, func() error {
		dropped, err := g.fw.Dropped(t.Context())
		if err == nil && (dropped[policy.Ingress] == 0 || dropped[policy.Egress] != 0) {
			t.Errorf("dropped %v", dropped)
		}
		return err
	})
}

// BenchmarkApply sets the rules for 50,000 pods and 2,000 policies on a node with 250 of the pods: all rules, those of a pod of another
// node, those of a pod of this node with the policies of others, and a call of Intact.
func BenchmarkApply(b *testing.B) {
	g := newGateway(b)
	c := policytest.Large(50_000, 2_000, 250)
	s := policy.NewState()
	policytest.Move(s, &policy.Cluster{}, c)
	s.Update()
	b.Run("whole", func(b *testing.B) {
		for b.Loop() {
			g.apply(b, s.Ruleset())
		}
	})
	change := func(b *testing.B, pod *policy.Pod) {
		for b.Loop() {
			s.DeletePod(pod.Namespace, pod.Name)
			g.do(b, func() error { return g.fw.Change(b.Context(), s.Update()) })
			s.SetPod(pod)
			g.do(b, func() error { return g.fw.Change(b.Context(), s.Update()) })
		}
	}
	g.apply(b, s.Ruleset())
	b.Run("remote", func(b *testing.B) { change(b, c.Pods[40_000]) })
	twin := *c.Pods[7]
	twin.Name, twin.Link, twin.IPs = "twin", "vwefttwin", []netip.Addr{netip.AddrFrom4([4]byte{10, 40, 0, 1})}
	b.Run("local", func(b *testing.B) { change(b, &twin) })
	b.Run("intact", func(b *testing.B) {
		for b.Loop() {
			g.do(b, func() error { _, err := g.fw.Intact(b.Context()); return err })
		}
	})
}
