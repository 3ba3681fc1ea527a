package e2e

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/kube/firewall"
	"weft/internal/kube/policy"
	"weft/internal/leases/holder"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// directRouting are the flags of nodes with direct routing and both families.
var directRouting = []string{"--direct-routing", "auto", "--range", "10.32.0.0/12", "--range", "fd32::/64"}

// directTable is the routing table of a node with default ports.
const directTable = "6783"

// newDirect starts two nodes that route to each other directly, with a pod on each.
func newDirect(t *testing.T, args ...string) ([]*cluster.Node, []*pod) {
	t.Helper()
	nodes := newNodes(t, "a", "b")
	start(t, nodes, append(slices.Clone(directRouting), args...)...)
	pods := reachingPods(t, nodes)
	waitCarrier(t, nodes, api.CarrierDirect)
	return nodes, pods
}

// dropRouted makes a node drop what comes from the addresses of pods outside of the overlay, or end that.
func dropRouted(t *testing.T, n *cluster.Node, on bool) {
	t.Helper()
	rules := "delete table inet cutdirect"
	if on {
		rules = "add table inet cutdirect; add chain inet cutdirect in { type filter hook prerouting priority -310; };" +
			"add rule inet cutdirect in iifname eth0 ip saddr 10.32.0.0/12 drop; add rule inet cutdirect in iifname eth0 ip6 saddr fd32::/64 drop"
	}
	labtest.Run(t, n.Space, "nft", rules)
}

// isClean returns an error if a node has rules, routes or links of direct routing.
func isClean(t *testing.T, n *cluster.Node) error {
	t.Helper()
	found := strings.Join(links(t, n.Host), "\n")
	for _, line := range []string{
		"nft list tables", "ip rule", "ip -6 rule", "ip route show table all", "ip -6 route show table all",
	} {
		found += labtest.Run(t, n.Space, strings.Fields(line)...)
	}
	for _, word := range []string{"weftp6783d", "lookup " + directTable, "table " + directTable} {
		if strings.Contains(found, word) {
			return fmt.Errorf("%s still has %q:\n%s", n.Label(), word, found)
		}
	}
	return nil
}

// TestDirect: packets between pods of two nodes on one link have no header on the underlay, in both families, and frames of groups arrive
// as ever. When they are lost, another carrier has them within a second, and the routes again later.
func TestDirect(t *testing.T) {
	nodes, pods := newDirect(t)
	for _, to := range pods[1].addrs {
		pods[0].reaches(t, to)
	}
	wire := captureUnderlay(t, nodes...)[0]
	transferBoth(t, pods, 16<<20)
	seen := 0
	for _, p := range wire.packets(t) {
		ip, is4 := gopacket.NewPacket(p.frame, layers.LayerTypeEthernet, gopacket.Default).NetworkLayer().(*layers.IPv4)
		if is4 && ip.SrcIP.String() == pods[0].addr.String() && ip.DstIP.String() == pods[1].addr.String() {
			seen++
		}
	}
	if seen < 100 {
		t.Errorf("the underlay has seen %d packets of the pod without a header", seen)
	}
	for i, n := range nodes {
		p := peerOf(t, n, nodes[1-i].Label())
		if p.Encrypted || p.Datapath != api.DatapathKernel || p.Kernel.TxBytes < 16<<20 || p.Kernel.RxBytes < 16<<20 {
			t.Errorf("%+v", p)
		}
		for _, c := range query[api.Status](t, n, "status").Conditions {
			if c.Code != string(health.NoSecret) {
				t.Errorf("%s has the condition %+v", n.Label(), c)
			}
		}
	}
	if out := labtest.Run(t, pods[0].Space, "ping", "-c1", pods[1].addr.String()); !strings.Contains(out, "ttl=62") {
		t.Errorf("two hops should be visible: %s", out)
	}
	sockets := openAll(t, pods)
	sockets[0].send(t, mac(t, "ff:ff:ff:ff:ff:ff"), "to all")
	if got := sockets[1].receiveUntil(t, "to all"); !slices.Equal(got, []string{"to all"}) {
		t.Errorf("the other pod received %q", got)
	}
	pings := pods[0].pinging(t, pods[1].addr)
	pings.waitReplies(t, 20)
	dropRouted(t, nodes[1], true)
	waitCarrier(t, nodes, api.CarrierVXLAN)
	pings.waitReplies(t, 5)
	dropRouted(t, nodes[1], false)
	waitCarrier(t, nodes, api.CarrierDirect)
	pings.waitReplies(t, 20)
	if sent, lost := pings.stop(t); lost > 20 {
		t.Errorf("%d of %d pings 50 ms apart were lost, want at most 20, which is one second", lost, sent)
	}
}

// TestDirectHosts: hosts and pods of other nodes reach each other, with the addresses that they have without direct routing.
func TestDirectHosts(t *testing.T) {
	t.Parallel()
	nodes, pods := newDirect(t)
	var own []netip.Addr
	for _, n := range nodes {
		do(t, n, "expose")
		for _, l := range query[[]api.Lease](t, n, "ip", "list") {
			if l.Owner == "weft:expose" && l.IP.Addr().Is4() {
				own = append(own, l.IP.Addr())
			}
		}
	}
	pods[0].reaches(t, own[1])
	pods[1].reaches(t, own[0])
	// Firewalls that follow connections see both directions of those from and to hosts.
	for _, n := range nodes {
		runLines(t, n, "nft add table inet stateful", "nft add chain inet stateful forward '{ type filter hook forward priority 0; }'",
			"nft add rule inet stateful forward ct state invalid counter drop")
	}
	for i, n := range nodes {
		host := &pod{&nettest.Pod{Space: n.Space}, n, own[i], nil}
		for _, pair := range [][2]*pod{{host, pods[1-i]}, {pods[1-i], host}} {
			if err := transfer(testContext(t), pair[0], pair[1], 1<<20); err != nil {
				t.Errorf("between the host %s and a pod of the other one: %v", n.Label(), err)
			}
		}
	}
	for i, n := range nodes {
		labtest.Until(t, patience, func() error { return cluster.Ping(testContext(t), n.Space, pods[1-i].addr) })
		labtest.Until(t, patience, func() error { return cluster.Ping(testContext(t), n.Space, own[1-i]) })
		if out := labtest.Run(t, n.Space, "ip", "route", "get", pods[1-i].addr.String()); !strings.Contains(out, "src "+own[i].String()) {
			t.Errorf("%s sends to the other pod with another address than %s: %s", n.Label(), own[i], out)
		}
	}
	waitCarrier(t, nodes, api.CarrierDirect)
}

// TestDirectPolicies: a policy for a pod holds for what other nodes route to it, and does not stop the probes.
func TestDirectPolicies(t *testing.T) {
	t.Parallel()
	nodes, pods := newDirect(t)
	pods = append(pods, attach(t, nodes[0], "q"))
	pods[2].reaches(t, pods[1].addr)
	c := &policy.Cluster{Namespaces: map[string]policy.Labels{"x": {}}}
	for i, p := range pods {
		link := ""
		for _, l := range query[[]api.Lease](t, p.node, "ip", "list") {
			if l.IP.Addr() == p.addr {
				link = holder.Parse(l.Owner).AttachLink()
			}
		}
		c.Pods = append(c.Pods, &policy.Pod{
			Namespace: "x", Name: fmt.Sprint("p", i), Labels: policy.Labels{"app": fmt.Sprint("p", i)}, IPs: p.addrs, Local: i == 1, Link: link,
		})
	}
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "np"}}
	np.Spec.PodSelector.MatchLabels = map[string]string{"app": "p1"}
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
		PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "p0"}},
	}}}}
	c.Network = []*networkingv1.NetworkPolicy{np}
	if err := nodes[1].Host.Do(func() error {
		fw, err := firewall.New(t.Context())
		if err != nil {
			return err
		}
		defer func() { _ = fw.Close() }()
		return fw.Apply(t.Context(), policy.Compile(c))
	}); err != nil {
		t.Fatal(err)
	}
	for _, to := range pods[1].addrs {
		if err := cluster.Ping(testContext(t), pods[2].Space, to); err == nil {
			t.Errorf("a pod that the policy excludes reaches %s", to)
		}
		pods[0].reaches(t, to)
		if err := cluster.Ping(testContext(t), pods[2].Space, to); err == nil {
			t.Errorf("a pod that the policy excludes reaches %s", to)
		}
	}
	before := peerOf(t, nodes[0], "b").Kernel.TxFrames
	pings := pods[0].pinging(t, pods[1].addr)
	pings.waitReplies(t, 40)
	pings.steady(t)
	waitCarrier(t, nodes, api.CarrierDirect)
	if sent := peerOf(t, nodes[0], "b").Kernel.TxFrames - before; sent < 40 {
		t.Errorf("%d frames were routed", sent)
	}
}

// TestDirectService: a connection to an address that the host translates to a pod of another node, as kube-proxy does, is routed there and
// back.
func TestDirectService(t *testing.T) {
	t.Parallel()
	nodes, pods := newDirect(t)
	do(t, nodes[0], "expose")
	client, server := attach(t, nodes[0], "client"), pods[1]
	runLines(t, nodes[0], "nft add table ip service", "nft add chain ip service in '{ type nat hook prerouting priority dstnat; }'",
		"nft add rule ip service in ip daddr 10.96.0.1 counter dnat to "+server.addr.String())
	client.reaches(t, server.addr)
	waitCarrier(t, nodes, api.CarrierDirect)
	before := peerOf(t, nodes[0], "b").Kernel
	pings := client.pinging(t, netip.MustParseAddr("10.96.0.1"))
	pings.waitReplies(t, 40)
	pings.steady(t)
	if out := labtest.Run(t, client.Space, "ping", "-c1", "10.96.0.1"); !strings.Contains(out, "from 10.96.0.1:") {
		t.Errorf("the answer comes from elsewhere: %s", out)
	}
	if after := peerOf(t, nodes[0], "b").Kernel; after.RxFrames-before.RxFrames < 40 {
		t.Errorf("%d answers were routed", after.RxFrames-before.RxFrames)
	}
}

// TestDirectEnds: routes and rules end with the daemon, and with the next start after one that was killed. Pods notice nothing.
func TestDirectEnds(t *testing.T) {
	t.Parallel()
	nodes, pods := newDirect(t)
	pings := pods[0].pinging(t, pods[1].addr)
	pings.waitReplies(t, 20)
	if err := nodes[1].Stop(); err != nil {
		t.Fatal(err)
	}
	if err := isClean(t, nodes[1]); err != nil {
		t.Error(err)
	}
	pings.waitReplies(t, 20)
	up(t, nodes[1], append(slices.Clone(directRouting), others(nodes, nodes[1])...)...)
	waitReady(t, nodes)
	waitCarrier(t, nodes, api.CarrierDirect)
	// The kernels carry all else by VXLAN again, too, or there would be no ARP while the daemon is dead.
	for i, n := range nodes {
		labtest.Until(t, patience, func() error {
			entries := labtest.Run(t, n.Space, "bridge", "fdb", "show", "dev", kernelDevice)
			if flood := "00:00:00:00:00:00 dst " + nodes[1-i].Addr().String(); !strings.Contains(entries, flood) {
				return fmt.Errorf("%s does not flood to the other node: %s", n.Label(), entries)
			}
			return nil
		})
	}
	nodes[1].Process().Kill()
	pings.waitReplies(t, 60)
	waitState(t, nodes[0], "b", api.PeerDead)
	pings.waitReplies(t, 20)
	up(t, nodes[1], append(slices.Clone(directRouting[2:]), others(nodes, nodes[1])...)...) // without direct routing
	waitReady(t, nodes)
	waitCarrier(t, nodes, api.CarrierVXLAN)
	if err := isClean(t, nodes[1]); err != nil {
		t.Error(err)
	}
	pings.waitReplies(t, 20)
	if sent, lost := pings.stop(t); lost > 20 {
		t.Errorf("%d of %d pings 50 ms apart were lost, want at most 20", lost, sent)
	}
	do(t, nodes[0], "leave")
	labtest.Until(t, patience, func() error { return isClean(t, nodes[0]) })
}

// TestDirectDisturbed: other programs remove what direct routing needs; no frame is lost for long, and it comes back.
func TestDirectDisturbed(t *testing.T) {
	t.Parallel()
	nodes, pods := newDirect(t)
	pings := pods[0].pinging(t, pods[1].addr)
	pings.waitReplies(t, 20)
	for _, line := range []string{
		"nft flush ruleset", "ip rule del pref " + directTable, "ip route flush table " + directTable,
		"nft flush map bridge weft-weftp6783d to4", "ip link del weftp6783d",
	} {
		runLines(t, nodes[0], line)
		pings.waitReplies(t, 10)
		labtest.Until(t, patience, func() error {
			rules := labtest.Run(t, nodes[0].Space, "ip", "rule")
			routes := labtest.Run(t, nodes[0].Space, "ip", "route", "show", "table", "all")
			elements := labtest.Run(t, nodes[0].Space, "nft", "list", "ruleset")
			if !strings.Contains(rules, "lookup "+directTable) || strings.Count(routes, "table "+directTable) < 2 ||
				!strings.Contains(elements, `: "to-`) {
				return fmt.Errorf("after %q:\n%s%s", line, rules, routes)
			}
			return nil
		})
		waitCarrier(t, nodes, api.CarrierDirect)
	}
	if sent, lost := pings.stop(t); lost > 20*5 {
		t.Errorf("%d of %d pings 50 ms apart were lost, want at most one second each time", lost, sent)
	}
}

// TestDirectRefused: where the link drops packets with the addresses of pods, as the source checks of clouds do, or has a smaller MTU, the
// peers stay with VXLAN, and a condition says why as far as the node can know. A host that drops packets by rp_filter is no obstacle.
func TestDirectRefused(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	for _, n := range nodes {
		runLines(t, n, "sysctl -qw net.ipv4.conf.all.rp_filter=1", "sysctl -qw net.ipv4.conf.eth0.rp_filter=1")
	}
	dropRouted(t, nodes[1], true)
	start(t, nodes, directRouting...)
	pods := reachingPods(t, nodes)
	waitCarrier(t, nodes, api.CarrierVXLAN)
	pods[0].reaches(t, pods[1].addr)
	dropRouted(t, nodes[1], false)
	waitCarrier(t, nodes, api.CarrierDirect)
	for _, to := range pods[1].addrs {
		pods[0].reaches(t, to)
	}
	runLines(t, nodes[0], "nft add table inet small", "nft add chain inet small forward '{ type filter hook forward priority 0; }'",
		"nft add rule inet small forward iifname weave oifname eth0 meta length gt 1400 drop")
	waitCarrier(t, nodes, api.CarrierVXLAN)
	pods[0].reaches(t, pods[1].addr)
	runLines(t, nodes[0], "nft delete table inet small", "ip link set eth0 down")
	waitCondition(t, nodes[0], "down", health.KernelPathDown, "no direct routing: eth0 is down")
	runLines(t, nodes[0], "ip link set eth0 up")
	waitCondition(t, nodes[0], "up again", health.KernelPathDown)
	waitCarrier(t, nodes, api.CarrierDirect)
	for _, to := range pods[1].addrs {
		pods[0].reaches(t, to)
	}
}

// TestDirectOtherPort: a start with another port, or with a secret, removes what a killed daemon has left before anything is sent.
func TestDirectOtherPort(t *testing.T) {
	t.Parallel()
	nodes, _ := newDirect(t)
	for i, n := range nodes {
		n.Process().Kill()
		if isClean(t, n) == nil {
			t.Errorf("the killed daemon of %s has left nothing", n.Label())
		}
		flags := append([]string{"--port", "7783"}, directRouting[2:]...)
		if i == 0 {
			writeSecret(t, n, newSecret(t))
			flags = append(flags, "--secret-file", secretFile(n))
		}
		up(t, n, flags...)
		labtest.Until(t, patience, func() error { return isClean(t, n) })
	}
}
