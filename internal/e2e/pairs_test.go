package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"weft/internal/api"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// behindNAT adds a node behind an address translator of its own, and returns the translator as well.
func behindNAT(t *testing.T, lab *nettest.Lab, name string) (n *cluster.Node, nat *nettest.Host) {
	t.Helper()
	h, err := lab.AddHostBehindNAT(testContext(t), name)
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(lab.Hosts(), func(other *nettest.Host) bool { return other.Label() == name+"-nat" })
	return nodeOn(t, h), lab.Hosts()[at]
}

// waitCarriers waits until each of the nodes carries the others by VXLAN.
func waitCarriers(t *testing.T, nodes ...*cluster.Node) {
	t.Helper()
	for _, n := range nodes {
		for _, other := range nodes {
			if other != n {
				labtest.Until(t, patience, func() error {
					if p := peerOf(t, n, other.Label()); p.Carrier != api.CarrierVXLAN {
						return fmt.Errorf("%s carries %s by %s", n.Label(), p.Name, p.Carrier)
					}
					return nil
				})
			}
		}
	}
}

// pairLinks returns the devices of pairs of a node.
func pairLinks(t *testing.T, n *cluster.Node) []string {
	t.Helper()
	return slices.DeleteFunc(links(t, n.Host), func(name string) bool { return !strings.HasPrefix(name, kernelDevice+".") })
}

// TestPairsThroughNAT: the kernel carries frames between nodes that others reach and nodes behind translators of which one changes the
// ports; TCP, broadcasts, tables and counters are those of other peers. The nodes follow a translator that forgets, and a restart at
// either end.
func TestPairsThroughNAT(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	a, b := nodes[0], nodes[1]
	c, _ := behindNAT(t, a.Lab(), "c")
	d, nat := behindNAT(t, a.Lab(), "d")
	runLines(t, &cluster.Node{Host: nat}, "nft flush chain ip nat postrouting",
		"nft add rule ip nat postrouting oifname eth0 masquerade fully-random")
	nodes = append(nodes, c, d)
	for _, n := range nodes {
		up(t, n, "--init-peers", "4", a.Addr().String())
	}
	waitReady(t, nodes)
	waitCarriers(t, a, b, c)
	waitCarriers(t, a, b, d)
	if p := peerOf(t, c, "d"); p.Carrier != api.CarrierUserspace {
		t.Errorf("two nodes behind translators use %s", p.Carrier)
	}
	var pods []*pod
	for _, n := range nodes {
		pods = append(pods, attach(t, n, "p"))
	}
	for _, from := range pods {
		for _, to := range pods {
			from.reaches(t, to.addr)
		}
	}
	transferByKernel(t, a, "d", []*pod{pods[0], pods[3]}, 8<<20)
	behind := map[string]int{}
	for _, e := range query[[]api.FDBEntry](t, a, "fdb") {
		behind[e.Name]++
	}
	if behind["b"] < 1 || behind["c"] < 1 || behind["d"] < 1 {
		t.Errorf("addresses behind %v", behind)
	}
	sockets := openAll(t, pods)
	sockets[0].sendFrom(t, mac(t, "02:00:00:00:00:77"), mac(t, "ff:ff:ff:ff:ff:ff"), "to all")
	sockets[0].sendFrom(t, mac(t, "02:00:00:00:00:77"), mac(t, "ff:ff:ff:ff:ff:ff"), "end")
	for i, s := range sockets[1:] {
		if got := s.receiveUntil(t, "end"); fmt.Sprint(got) != "[to all end]" {
			t.Errorf("pod %d got %q", i+1, got)
		}
	}

	// The translator forgets, and gives the node another port.
	ping := pods[3].pinging(t, pods[0].addr)
	ping.waitReplies(t, 20)
	before := peerOf(t, a, "d")
	if err := nat.Do(func() error { return netlink.ConntrackTableFlush(netlink.ConntrackTable) }); err != nil {
		t.Fatal(err)
	}
	ping.waitReplies(t, 60)
	waitCarriers(t, a, d)
	ping.waitReplies(t, 20)
	if _, lost := ping.stop(t); lost > 40 {
		t.Errorf("%d pings lost, one every 50 ms", lost)
	}
	if after := peerOf(t, a, "d"); after.Kernel.RxFrames <= before.Kernel.RxFrames {
		t.Errorf("the kernel received %d frames, then %d", before.Kernel.RxFrames, after.Kernel.RxFrames)
	}
	for _, n := range []*cluster.Node{a, d} {
		n.Process().Kill()
		_ = n.Process().Wait()
		up(t, n, "--init-peers", "4", b.Addr().String())
		waitReady(t, nodes)
		waitCarriers(t, a, b, d)
		pods[0].reaches(t, pods[3].addr)
	}
	waitCarriers(t, a, b, c)
	made := pairLinks(t, a)
	if len(made) != 2 {
		t.Fatalf("a has the devices %q", made)
	}
	runLines(t, a, "nft flush ruleset", "ip link del "+made[0], "ip link del "+made[1])
	labtest.Until(t, patience, func() error {
		if got := pairLinks(t, a); len(got) != 2 {
			return fmt.Errorf("the devices are not there again: %q", got)
		}
		return nil
	})
	waitCarriers(t, a, b, c)
	waitCarriers(t, a, b, d)
	pods[0].reaches(t, pods[2].addr)
	do(t, d, "leave")
	labtest.Until(t, patience, func() error {
		if left, others := pairLinks(t, d), pairLinks(t, a); len(left) > 0 || len(others) != 1 {
			return fmt.Errorf("after the node has left there are %q and %q", left, others)
		}
		return nil
	})
}

// TestPairsOfFamilies: the kernel carries frames between nodes with addresses of different families on the underlay, and each node still
// uses one device for all peers of its own family.
func TestPairsOfFamilies(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c", "d")
	for i, n := range nodes {
		args := []string{"--init-peers", "4", nodes[0].Addr().String(), "[" + nodes[2].Addr6().String() + "]"}
		if i >= 2 {
			args = append(args, "--advertise", n.Addr6().String())
		} else {
			args = append(args, "--advertise", n.Addr().String())
		}
		up(t, n, args...)
	}
	waitReady(t, nodes)
	var pods []*pod
	for _, n := range nodes {
		pods = append(pods, attach(t, n, "p"))
	}
	for _, from := range pods { // which makes sessions
		for _, to := range pods {
			from.reaches(t, to.addr)
		}
	}
	waitCarriers(t, nodes...)
	for _, n := range nodes {
		if got := pairLinks(t, n); len(got) != 2 {
			t.Errorf("%s has the devices %q", n.Label(), got)
		}
	}
	transferByKernel(t, nodes[0], "d", []*pod{pods[0], pods[3]}, 64<<20)
	// A firewall that drops the datagrams of pairs moves them to userspace, and back.
	ping := pods[0].pinging(t, pods[3].addr)
	ping.waitReplies(t, 20)
	runLines(t, nodes[0], "nft add table inet other", "nft add chain inet other c '{ type filter hook prerouting priority -300; }'",
		"nft add rule inet other c udp dport 6785 drop")
	waitDatapath(t, nodes[0], "d", api.DatapathUserspace)
	waitDatapath(t, nodes[3], "a", api.DatapathUserspace)
	ping.waitReplies(t, 20)
	runLines(t, nodes[0], "nft delete table inet other")
	waitCarriers(t, nodes...)
	if _, lost := ping.stop(t); lost > 20 {
		t.Errorf("%d pings lost, one every 50 ms", lost)
	}
}

// TestForwardedPorts: a node that announces the address of a translator, which forwards its ports, uses the common device.
func TestForwardedPorts(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	c, nat := behindNAT(t, nodes[0].Lab(), "c")
	inside := c.Addr().String()
	runLines(t, &cluster.Node{Host: nat}, "nft add chain ip nat prerouting '{ type nat hook prerouting priority dstnat; }'",
		"nft add rule ip nat prerouting iifname eth0 udp dport 6783-6785 dnat to "+inside,
		"nft add rule ip nat prerouting iifname eth0 tcp dport 6783 dnat to "+inside, "nft add rule ip nat forward ct status dnat accept")
	up(t, c, "--init-peers", "3", "--advertise", nat.Addr().String(), nodes[0].Addr().String())
	for _, n := range nodes {
		up(t, n, "--init-peers", "3", nodes[0].Addr().String())
	}
	nodes = append(nodes, c)
	waitReady(t, nodes)
	var pods []*pod
	for _, n := range nodes {
		pods = append(pods, attach(t, n, "p"))
	}
	for _, from := range pods {
		for _, to := range pods {
			from.reaches(t, to.addr)
		}
	}
	waitCarriers(t, nodes...)
	transferBoth(t, []*pod{pods[0], pods[2]}, 8<<20)
	for _, n := range nodes {
		if got := pairLinks(t, n); len(got) > 0 {
			t.Errorf("%s has the devices %q", n.Label(), got)
		}
	}
}
