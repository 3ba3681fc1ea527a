package firewall_test

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"weft/internal/kube/policy"
	"weft/internal/kube/policy/policytest"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// addPods adds a namespace for each pod of a cluster, connected to the bridge by the pod's link.
func (n *network) addPods(t *testing.T, c *policy.Cluster) []*nettest.Pod {
	t.Helper()
	var pods []*nettest.Pod
	for _, p := range c.Pods {
		pod := labtest.AddPod(t, n.Host, p.Name)
		labtest.Run(t, n.Space, "ip", "link", "add", p.Link, "type", "veth", "peer", "name", "eth0", "netns", pod.Name())
		labtest.Run(t, n.Space, "ip", "link", "set", p.Link, "master", "weave", "up")
		for _, ip := range p.IPs {
			labtest.Run(t, pod.Space, "ip", "addr", "add", ip.String()+"/12", "dev", "eth0")
		}
		labtest.Run(t, pod.Space, "ip", "link", "set", "eth0", "up")
		pods = append(pods, pod)
	}
	return pods
}

// strict returns a cluster of a client and a server with default-deny policies. The client may connect to TCP port 80 of the server.
func strict() *policy.Cluster {
	c := pair()
	c.Pods = c.Pods[:2]
	port := intstr.FromInt32(80)
	peer := func(name string) []networkingv1.NetworkPolicyPeer {
		return []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": name}}}}
	}
	both := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	ports := []networkingv1.NetworkPolicyPort{{Port: &port}}
	deny := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "deny"}}
	deny.Spec.PolicyTypes = both
	client := deny.DeepCopy()
	client.Name, client.Spec.PodSelector.MatchLabels = "client", map[string]string{"app": "a"}
	client.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: peer("b"), Ports: ports}}
	server := deny.DeepCopy()
	server.Name, server.Spec.PodSelector.MatchLabels = "server", map[string]string{"app": "b"}
	server.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peer("a"), Ports: ports}}
	c.Network = []*networkingv1.NetworkPolicy{deny, client, server}
	return c
}

// TestConntrackFlushed: the server's data of an open connection arrives after the host has lost the connection, and a changed policy
// still ends it. The server cannot connect to the client.
func TestConntrackFlushed(t *testing.T) {
	n, c := newNetwork(t), strict()
	pods := n.addPods(t, c)
	n.apply(t, c)
	a, b := pods[0], pods[1]
	listen := func(p *nettest.Pod, address string) (l net.Listener) {
		if err := p.Do(func() (err error) { l, err = net.Listen("tcp", address); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	dial := func(p *nettest.Pod, address string) (c net.Conn, err error) {
		err = p.Do(func() (err error) {
			dialer := net.Dialer{Timeout: time.Second}
			c, err = dialer.DialContext(t.Context(), "tcp", address)
			return err
		})
		return c, err
	}
	l := listen(b, ":80")
	_ = listen(a, ":4000")
	client, err := dial(a, net.JoinHostPort(c.Pods[1].IPs[0].String(), "80"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = client.Close() }()
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = server.Close() }()
	lines := bufio.NewReader(client)
	says := func(line string) error {
		_ = client.SetReadDeadline(time.Now().Add(3 * time.Second))
		if _, err := fmt.Fprintln(server, line); err != nil {
			return err
		}
		got, err := lines.ReadString('\n')
		if err == nil && strings.TrimSpace(got) != line {
			err = fmt.Errorf("got %q", got)
		}
		return err
	}
	for _, step := range []string{"before", "flushed", "flushed again"} {
		if err := says(step); err != nil {
			t.Fatalf("data of the server, %s: %v", step, err)
		}
		if _, err := dial(b, net.JoinHostPort(c.Pods[0].IPs[0].String(), "4000")); err == nil {
			t.Errorf("%s: the server can connect to the client", step)
		}
		n.do(t, func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) })
	}
	c.Network = c.Network[:2] // without that of the server
	n.apply(t, c)
	if err := says("denied"); err == nil {
		t.Error("the connection goes on although no policy of the server allows it")
	}
}

// TestClosedWithoutBridgeNetfilter: while bridged packets do not pass the host's firewall, pods that policies select get none, and
// the others are not affected.
func TestClosedWithoutBridgeNetfilter(t *testing.T) {
	n, c := newNetwork(t), pair()
	for _, p := range c.Pods {
		n.addPort(t, p.Link)
	}
	n.apply(t, c)
	reach := func(from, to int) bool {
		f := policytest.Frame{From: c.Pods[from], EtherType: 0x0800, Packet: tcp(c, from, to)}
		return n.deliver(t, []policytest.Frame{f})[0][c.Pods[to].Link]
	}
	if !reach(0, 1) || reach(2, 1) || !reach(0, 2) {
		t.Fatal("policies are not in force")
	}
	labtest.Run(t, n.Space, "sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=0")
	if reach(0, 1) || reach(2, 1) {
		t.Error("a pod that a policy selects gets packets that its policies have not judged")
	}
	if !reach(0, 2) {
		t.Error("a pod without policies gets no packets")
	}
}

// TestGroupCannotOpen: an answer to a packet from a group address is no answer to the pods of the group.
func TestGroupCannotOpen(t *testing.T) {
	n, c := newNetwork(t), pair()
	for _, p := range c.Pods {
		n.addPort(t, p.Link)
	}
	n.apply(t, c)
	for _, group := range policytest.Groups[:4] {
		n.serial = 2000
		open := policytest.Frame{EtherType: 0x0800, Packet: policytest.Packet{
			Src: group, Dst: c.Pods[2].IPs[0], Protocol: corev1.ProtocolUDP, Port: 2001,
		}}
		answer := policytest.Frame{From: c.Pods[2], EtherType: 0x0800, Group: true, Packet: policytest.Packet{
			Src: c.Pods[2].IPs[0], Dst: group, Protocol: corev1.ProtocolUDP, Port: 2000,
		}}
		got := n.deliver(t, []policytest.Frame{open, answer})
		if !got[0][c.Pods[2].Link] || !got[1][c.Pods[0].Link] || got[1][c.Pods[1].Link] {
			t.Errorf("%s: the ports got %v", group, got)
		}
	}
}

// TestRoutedToUnknownAddress: a packet that the host routes to an address that a selected pod has given itself does not reach it.
// The host itself does.
func TestRoutedToUnknownAddress(t *testing.T) {
	n, c := newNetwork(t), pair()
	pods := n.addPods(t, c)
	outside := labtest.AddPod(t, n.Host, "outside")
	for _, line := range []string{
		"ip link add out0 type veth peer name eth0 netns " + outside.Name(), "ip addr add 192.0.2.1/24 dev out0", "ip link set out0 up",
	} {
		labtest.Run(t, n.Space, strings.Fields(line)...)
	}
	for _, line := range []string{"ip addr add 192.0.2.2/24 dev eth0", "ip link set eth0 up", "ip route add default via 192.0.2.1"} {
		labtest.Run(t, outside.Space, strings.Fields(line)...)
	}
	extra := []netip.Addr{netip.MustParseAddr("10.32.7.1"), netip.MustParseAddr("10.32.7.2"), netip.MustParseAddr("10.32.7.3")}
	for i, p := range pods {
		labtest.Run(t, p.Space, "ip", "addr", "add", extra[i].String()+"/12", "dev", "eth0")
		labtest.Run(t, p.Space, "ip", "route", "add", "default", "via", "10.32.100.1")
	}
	ping := func(s *nettest.Space, ip netip.Addr) bool {
		_, err := s.Run(t.Context(), "ping", "-c1", "-W1", ip.String())
		return err == nil
	}
	n.apply(t, c)
	for i, want := range []bool{true, false, true} { // the second pod accepts the first alone
		for _, ip := range []netip.Addr{c.Pods[i].IPs[0], extra[i]} {
			if got := ping(outside.Space, ip); got != want {
				t.Errorf("from outside to %s of %s: %v, want %v", ip, c.Pods[i].Name, got, want)
			}
			if !ping(n.Space, ip) {
				t.Errorf("the host does not reach %s of %s", ip, c.Pods[i].Name)
			}
		}
	}
	if !ping(pods[1].Space, netip.MustParseAddr("192.0.2.2")) {
		t.Error("the pod gets no answer from outside")
	}
	if out, err := pods[1].Run(t.Context(), "ping", "-c1", "-W1", "-I", extra[1].String(), "192.0.2.2"); err != nil {
		t.Errorf("the pod gets no answer from outside at an address of its own: %s", out)
	}
}

// TestService: pods that policies select reach a Service, also each other and themselves through it, where policies allow the pod
// behind it.
func TestService(t *testing.T) {
	n, c := newNetwork(t), strict()
	pods := n.addPods(t, c)
	n.apply(t, c)
	for i, p := range pods {
		labtest.Run(t, p.Space, "ip", "route", "add", "default", "via", "10.32.100.1")
		labtest.Run(t, n.Space, "bridge", "link", "set", "dev", c.Pods[i].Link, "hairpin", "on")
	}
	for _, line := range []string{
		"nft add table ip service", "nft add chain ip service prerouting { type nat hook prerouting priority dstnat; }",
		"nft add rule ip service prerouting ip daddr 10.96.0.1 dnat to " + c.Pods[1].IPs[0].String(),
		"nft add rule ip service prerouting ip daddr 10.96.0.2 dnat to " + c.Pods[0].IPs[0].String(),
		"nft add chain ip service postrouting { type nat hook postrouting priority srcnat; }", // as kube-proxy, for a pod to itself
		"nft add rule ip service postrouting ip saddr . ip daddr { 10.32.0.1 . 10.32.0.1, 10.32.0.2 . 10.32.0.2 } masquerade",
	} {
		labtest.Run(t, n.Space, strings.Fields(line)...)
	}
	for _, p := range pods {
		var l net.Listener
		if err := p.Do(func() (err error) { l, err = net.Listen("tcp", ":80"); return err }); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	for i, want := range []map[string]bool{
		{"10.96.0.1:80": true, "10.96.0.2:80": true},  // the server, and itself
		{"10.96.0.1:80": true, "10.96.0.2:80": false}, // itself, and the client
	} {
		for address, reached := range want {
			err := pods[i].Do(func() error {
				dialer := net.Dialer{Timeout: time.Second}
				conn, err := dialer.DialContext(t.Context(), "tcp", address)
				if err == nil {
					_ = conn.Close()
				}
				return err
			})
			if (err == nil) != reached {
				t.Errorf("from %s to %s: %v, want reached: %v", c.Pods[i].Name, address, err, reached)
			}
		}
	}
}
