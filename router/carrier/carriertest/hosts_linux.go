package carriertest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"weft/internal/ether"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
	"weft/internal/peer"
	"weft/router/carrier"
	"weft/tap/bridge"
	"weft/tap/taptest"
)

// Names and sizes on a Host.
const (
	Bridge = "weave"
	Tap    = "weft0" // one end of a veth pair in the role of the TAP; the other one is TapEnd
	TapEnd = "tap"
	MTU    = 1422
)

// frameType is the type of the frames of Host.Send: an experimental one other than that of probes.
const frameType = 0x88b6

// probeType is the type of probes of carriers that are ports of the bridge; pods must not see them.
const probeType = 0x88b5

// Host is a host of a lab with the bridge of an overlay, the end of a TAP and a pod.
type Host struct {
	*nettest.Host
	ID     peer.ID
	Addr   netip.Addr // on the underlay
	Pod    *nettest.Pod
	IP     string // of the pod
	PodMAC ether.Addr
}

// NewHost adds a host to a lab. Its address is one of IPv6 if v6 is set. number is 1 to 250.
func NewHost(t *testing.T, l *nettest.Lab, number byte, v6 bool) *Host {
	t.Helper()
	h := &Host{Host: labtest.AddHost(t, l, fmt.Sprintf("n%d", number)), ID: peer.ID{number, number}, IP: fmt.Sprintf("10.32.0.%d", number)}
	if h.Addr = h.Host.Addr(); v6 {
		h.Addr = h.Addr6()
	}
	h.Pod = labtest.AddPod(t, h.Host, "pod")
	IP(t, h.Space, "link add "+Tap+" type veth peer name "+TapEnd)
	must(t, h.AddPorts(Tap))
	// Without IPv6 neither bridge nor pod sends anything by itself, which the tests would count.
	labtest.Run(t, h.Space, "sysctl", "-qw", "net.ipv6.conf."+Bridge+".disable_ipv6=1")
	labtest.Run(t, h.Pod.Space, "sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
	IP(t, h.Space, "link set "+TapEnd+" up")
	IP(t, h.Space, fmt.Sprintf("addr add 10.32.1.%d/12 dev %s", number, Bridge))
	IP(t, h.Space, fmt.Sprintf("link add pod mtu %d master %s type veth peer name eth0 mtu %d netns %s", MTU, Bridge, MTU, h.Pod.Name()))
	IP(t, h.Space, "link set pod up")
	IP(t, h.Pod.Space, "addr add "+h.IP+"/12 dev eth0")
	IP(t, h.Pod.Space, "link set eth0 up")
	h.PodMAC = MAC(t, h.Pod.Space, "eth0")
	return h
}

// AddPorts makes interfaces ports of the bridge, which is made if it is missing.
func (h *Host) AddPorts(names ...string) error {
	return h.Do(func() error {
		br, err := bridge.Ensure(bridge.Config{Name: Bridge, MTU: MTU})
		if err != nil {
			return err
		}
		defer br.Close()
		for _, name := range names {
			err = errors.Join(err, br.AddPort(name))
		}
		return err
	})
}

// IP runs "ip" with a line of arguments in a namespace, and returns what it prints.
func IP(t *testing.T, s *nettest.Space, line string) string {
	t.Helper()
	return labtest.Run(t, s, append([]string{"ip"}, strings.Fields(line)...)...)
}

// MAC returns the address of an interface.
func MAC(t *testing.T, s *nettest.Space, name string) ether.Addr {
	t.Helper()
	fields := strings.Fields(IP(t, s, "-o link show "+name))
	for i, f := range fields {
		if f == "link/ether" {
			m, err := ether.ParseAddr(fields[i+1])
			must(t, err)
			return m
		}
	}
	t.Fatalf("no address in %q", fields)
	return ether.Addr{}
}

// Socket opens a packet socket on an interface of a namespace.
func Socket(t *testing.T, s *nettest.Space, name string) (socket *taptest.Socket) {
	t.Helper()
	must(t, s.Do(func() error { socket = taptest.NewSocket(t, name); return nil }))
	return socket
}

// Frame returns an Ethernet frame that NextFrame finds.
func Frame(dst, src ether.Addr, content string) []byte {
	return append(append(append(dst[:], src[:]...), frameType>>8, frameType&0xff), content+strings.Repeat(".", 60)...)
}

// NextFrame returns the content of the next frame of Frame that arrives at a socket. Probes must not.
func NextFrame(t *testing.T, s *taptest.Socket) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for {
		f, err := s.Receive(ctx)
		must(t, err)
		switch ether.Type(f) {
		case probeType:
			t.Errorf("a pod has seen a probe: %x", f)
		case frameType:
			return strings.TrimRight(string(f[ether.HeaderLen:]), ".")
		}
	}
}

// Kind describes a kind of carrier to Hosts.
type Kind struct {
	// Open makes the carrier of a host. It is called in the namespace of the host.
	Open func(t *testing.T, h *Host) (carrier.Carrier, error)
	// Port is the name of its port of the bridge; empty: it has none, or adds it by itself. Another program deletes the link Link.
	Port, Link string
	// UDP is the port to which it sends on the underlay.
	UDP uint16
	// Peer returns a host as the peer of the other one; nil: with its address.
	Peer func(h *Host) carrier.Peer
	// Disturb removes what Ensure restores.
	Disturb func(t *testing.T, h *Host)
}

// HostNetwork is a Network of real hosts.
type HostNetwork struct {
	Kind  Kind
	Nodes [2]*Host
	Pods  [2]*taptest.Socket
}

var _ Network = (*HostNetwork)(nil)

// Hosts returns a HostNetwork with an underlay of IPv4 or IPv6.
func Hosts(t *testing.T, k Kind, v6 bool) *HostNetwork {
	t.Helper()
	lab := labtest.New(t, nettest.Config{})
	n := &HostNetwork{Kind: k}
	for i := range n.Nodes {
		n.Nodes[i] = NewHost(t, lab, byte(i+1), v6)
		n.Pods[i] = Socket(t, n.Nodes[i].Pod.Space, "eth0")
	}
	return n
}

// Open implements Network.
func (n *HostNetwork) Open(t *testing.T, node int) (c carrier.Carrier) {
	t.Helper()
	h := n.Nodes[node]
	must(t, h.Do(func() (err error) {
		c, err = n.Kind.Open(t, h)
		return err
	}))
	if n.Kind.Port != "" {
		must(t, h.AddPorts(n.Kind.Port))
	}
	return c
}

// Peer implements Network.
func (n *HostNetwork) Peer(node int) carrier.Peer {
	if n.Kind.Peer != nil {
		return n.Kind.Peer(n.Nodes[node])
	}
	return carrier.Peer{ID: n.Nodes[node].ID, Addr: n.Nodes[node].Addr}
}

// Keeps implements Network.
func (*HostNetwork) Keeps() bool { return true }

// Broadcast implements Network.
func (n *HostNetwork) Broadcast(t *testing.T, node int, content string) {
	t.Helper()
	must(t, n.Pods[node].Send(Frame(ether.Broadcast, n.Nodes[node].PodMAC, content)))
}

// Next implements Network.
func (n *HostNetwork) Next(t *testing.T, node int) string {
	t.Helper()
	return NextFrame(t, n.Pods[node])
}

// Break implements Network.
func (n *HostNetwork) Break(t *testing.T, on bool) {
	t.Helper()
	rules := "delete table inet cut"
	if on {
		rules = fmt.Sprintf("add table inet cut; add chain inet cut in { type filter hook input priority -10; };"+
			"add rule inet cut in udp dport %d drop", n.Kind.UDP)
	}
	for _, h := range n.Nodes {
		labtest.Run(t, h.Space, "nft", rules)
	}
}

// Delete implements Network.
func (n *HostNetwork) Delete(t *testing.T, node int) {
	t.Helper()
	IP(t, n.Nodes[node].Space, "link del "+n.Kind.Link)
}

// Disturb implements Network.
func (n *HostNetwork) Disturb(t *testing.T, node int) {
	t.Helper()
	n.Kind.Disturb(t, n.Nodes[node])
}
