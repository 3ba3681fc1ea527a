package e2e

import (
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// kernelDevice is the VXLAN device of a node with default ports.
const kernelDevice = "weftvx6785"

// waitDatapath waits until n uses the given datapath for another node.
func waitDatapath(t *testing.T, n *cluster.Node, to string, datapath api.Datapath) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		for _, p := range query[[]api.Peer](t, n, "peers") {
			if p.Name == to && p.Datapath == datapath {
				return nil
			}
		}
		return fmt.Errorf("%s does not carry %s by %s", n.Label(), to, datapath)
	})
}

// waitCarrier waits until two nodes use a carrier for each other.
func waitCarrier(t *testing.T, nodes []*cluster.Node, want api.Carrier) {
	t.Helper()
	for i, n := range nodes {
		labtest.Until(t, patience, func() error {
			if p := peerOf(t, n, nodes[1-i].Label()); p.Carrier != want {
				return fmt.Errorf("%s carries %s by %s, want %s", n.Label(), p.Name, p.Carrier, want)
			}
			return nil
		})
	}
}

// transferByKernel transfers size bytes in both directions between a pod of n and one of its peer, until the kernel path carries all bytes
// of one transfer: the first packets find a new way a moment after it is there.
func transferByKernel(t *testing.T, n *cluster.Node, name string, pods []*pod, size int64) {
	t.Helper()
	least, most := uint64(size), uint64(size)*3/2 // with headers, acknowledgements and repetitions
	labtest.Until(t, patience, func() error {
		before := peerOf(t, n, name).Kernel
		transferBoth(t, pods, size)
		after := peerOf(t, n, name).Kernel
		if tx, rx := after.TxBytes-before.TxBytes, after.RxBytes-before.RxBytes; min(tx, rx) < least || max(tx, rx) > most {
			return fmt.Errorf("the kernel path has sent %d bytes and received %d of two transfers of %d", tx, rx, size)
		}
		return nil
	})
}

// TestKernelPath: the kernel carries the frames between nodes without encryption and relays, for pods that were attached
// before the switch to the kernel path and for later ones. Broadcasts, such as ARP requests, still reach all pods.
func TestKernelPath(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	pods := []*pod{attach(t, nodes[0], "p0"), attach(t, nodes[1], "p0"), attach(t, nodes[2], "p0")}
	for _, n := range nodes {
		for _, other := range nodes {
			if n != other {
				waitDatapath(t, n, other.Label(), api.DatapathKernel)
			}
		}
	}
	pods = append(pods, attach(t, nodes[0], "p1"), attach(t, nodes[1], "p1"), attach(t, nodes[2], "p1"))
	for _, from := range pods {
		for _, to := range pods {
			from.reaches(t, to.addr)
		}
	}
	transferByKernel(t, nodes[0], "b", []*pod{pods[0], pods[4]}, 64<<20)
	if b := peerOf(t, nodes[0], "b"); b.Carrier != api.CarrierVXLAN || b.TxBytes < b.Kernel.TxBytes || b.RxFrames < b.Kernel.RxFrames {
		t.Errorf("the peer has %+v", b)
	}
	behind := map[string]int{}
	for _, e := range query[[]api.FDBEntry](t, nodes[0], "fdb") {
		behind[e.Name]++
	}
	if behind["b"] < 2 || behind["c"] < 2 {
		t.Errorf("addresses behind %v, want the pods of b and c among them", behind)
	}
	if s := query[api.Status](t, nodes[0], "status"); s.Datapath != api.DatapathKernel {
		t.Errorf("the status shows datapath %q", s.Datapath)
	}
	if err := nodes[0].Stop(); err != nil {
		t.Fatal(err)
	}
	waitState(t, nodes[1], "a", api.PeerDead)
	pods[0].reaches(t, pods[1].addr) // a stopped daemon is missed by no pod that the kernels carry
	do(t, nodes[1], "leave")
	labtest.Until(t, patience, func() error {
		if slices.Contains(links(t, nodes[1].Host), kernelDevice) {
			return errors.New("the device still exists after the node has left")
		}
		return nil
	})
}

// TestDeadKernelPath: nothing arrives on the data ports of a node that the kernel carries frames to, while gossip works. Both nodes have a
// condition, also without traffic of pods, until the cause ends.
func TestDeadKernelPath(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	runLines(t, nodes[0], "nft add table netdev other",
		"nft add chain netdev other c '{ type filter hook ingress device eth0 priority 0; }'",
		"nft add rule netdev other c udp dport 6785 drop")
	start(t, nodes)
	pods := reachingPods(t, nodes) // in userspace, so there are sessions
	runLines(t, nodes[0], "nft flush chain netdev other c")
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	waitDatapath(t, nodes[1], "a", api.DatapathKernel)
	runLines(t, nodes[0], "nft add rule netdev other c udp dport 6784-6785 drop")
	for _, n := range nodes {
		waitCondition(t, n, "blocked", health.PeerUnreachable, "alive but cannot be reached")
	}
	runLines(t, nodes[0], "nft delete table netdev other")
	for _, n := range nodes {
		waitCondition(t, n, "at the end", health.PeerUnreachable)
	}
	pods[0].reaches(t, pods[1].addr)
}

// TestKernelDeviceOfAnotherStart: the device that a stopped node leaves is gone after a start that uses another one, or none.
func TestKernelDeviceOfAnotherStart(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"--port", "7783"}, {"--datapath", "userspace"}, {"--secret-file"}} {
		t.Run(args[0], func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "a")
			if args[0] == "--secret-file" {
				writeSecret(t, nodes[0], newSecret(t))
				args = append(args, secretFile(nodes[0]))
			}
			start(t, nodes)
			waitLinks(t, nodes[0], kernelDevice, true)
			if err := nodes[0].Stop(); err != nil {
				t.Fatal(err)
			}
			waitLinks(t, nodes[0], kernelDevice, true)
			start(t, nodes, args...)
			waitLinks(t, nodes[0], kernelDevice, false)
			if out := labtest.Run(t, nodes[0].Space, "nft", "list", "tables"); strings.Contains(out, kernelDevice) {
				t.Errorf("tables: %s", out)
			}
		})
	}
}

// waitLinks waits until a host has an interface, or has it no longer.
func waitLinks(t *testing.T, n *cluster.Node, name string, want bool) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		if got := slices.Contains(links(t, n.Host), name); got != want {
			return fmt.Errorf("%s has %s: %v, want %v", n.Label(), name, got, want)
		}
		return nil
	})
}

var pingSummary = regexp.MustCompile(`(\d+) packets transmitted, (\d+) received`)

// TestKernelPathBreaks: a firewall starts to drop the kernel's datagrams. Less than a second of traffic is lost until the
// nodes switch to userspace. When the datagrams pass again, the nodes switch back to the kernel path.
func TestKernelPathBreaks(t *testing.T) {
	nodes, pods := pair(t)
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	waitDatapath(t, nodes[1], "a", api.DatapathKernel)
	pods[0].reaches(t, pods[1].addr)
	const every, count = "0.01", 600
	pinging := pods[0].Command(testContext(t), "ping", "-i", every, "-c", strconv.Itoa(count), "-W", "1", pods[1].addr.String())
	var out strings.Builder
	pinging.Stdout = &out
	if err := pinging.Start(); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"add table inet vxlandrop",
		"add chain inet vxlandrop in { type filter hook input priority -300; }",
		"add rule inet vxlandrop in udp dport 6785 drop",
	} {
		labtest.Run(t, nodes[1].Space, "nft", command)
	}
	waitDatapath(t, nodes[0], "b", api.DatapathUserspace)
	waitDatapath(t, nodes[1], "a", api.DatapathUserspace)
	if err := pinging.Wait(); err != nil {
		t.Fatalf("%v: %s", err, out.String())
	}
	m := pingSummary.FindStringSubmatch(out.String())
	if m == nil {
		t.Fatal(out.String())
	}
	received, _ := strconv.Atoi(m[2])
	if lost := count - received; lost > 100 {
		t.Errorf("%d pings 10 ms apart were lost, want at most 100, which is one second", lost)
	}
	labtest.Run(t, nodes[1].Space, "nft", "delete table inet vxlandrop")
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	transferBoth(t, pods, 1<<20)
}

// TestKernelPathWithOneSide: the other nodes reach a node with --datapath userspace in userspace.
func TestKernelPathWithOneSide(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	up(t, nodes[0], others(nodes, nodes[0])...)
	up(t, nodes[1], append(others(nodes, nodes[1]), "--datapath", "userspace")...)
	up(t, nodes[2], others(nodes, nodes[2])...)
	waitReady(t, nodes)
	waitDatapath(t, nodes[0], "c", api.DatapathKernel)
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p"), attach(t, nodes[2], "p")}
	for _, from := range pods {
		for _, to := range pods {
			from.reaches(t, to.addr)
		}
	}
	if s := query[api.Status](t, nodes[0], "status"); s.Datapath != api.DatapathMixed {
		t.Errorf("the status shows datapath %q", s.Datapath)
	}
}

// TestOtherVXLANDevice: if another program has a VXLAN device on the port, the node names the device and does not change
// it.
func TestOtherVXLANDevice(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	labtest.Run(t, nodes[0].Space, "ip", "link", "add", "theirs", "type", "vxlan", "id", "42",
		"dstport", "6785", "local", nodes[0].Addr().String())
	labtest.Run(t, nodes[0].Space, "ip", "link", "set", "theirs", "up")
	out, err := nodes[0].Do(testContext(t), "up", "--datapath", "kernel",
		"--state-dir", nodes[0].StateDir(), "--socket", nodes[0].Socket())
	if err == nil || !strings.Contains(err.Error(), "theirs") {
		t.Errorf("with --datapath kernel: %s, %v; want a refusal that names the device", out, err)
	}
	start(t, nodes)
	warned := slices.ContainsFunc(query[api.Status](t, nodes[0], "status").Warnings, func(w string) bool {
		return strings.Contains(w, "theirs")
	})
	if !warned {
		t.Error("no warning names the device")
	}
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p")}
	pods[0].reaches(t, pods[1].addr)
}

// TestKernelPathIsRepaired: after an operator deletes the device, pods still reach each other, and the node creates the
// device again.
func TestKernelPathIsRepaired(t *testing.T) {
	t.Parallel()
	nodes, pods := pair(t)
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	pods[0].reaches(t, pods[1].addr)
	before := peerOf(t, nodes[0], "b")
	labtest.Run(t, nodes[0].Space, "ip", "link", "del", kernelDevice)
	pods[0].reaches(t, pods[1].addr)
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	pods[0].reaches(t, pods[1].addr)
	labtest.Until(t, patience, func() error { // the deletion may not have been noticed yet
		pods[0].reaches(t, pods[1].addr)
		if after := peerOf(t, nodes[0], "b"); after.Kernel.TxBytes <= before.Kernel.TxBytes {
			return fmt.Errorf("sent %+v, and before the repair %+v", after.Kernel, before.Kernel)
		}
		return nil
	})
}

// peerOf returns a peer of a node.
func peerOf(t *testing.T, n *cluster.Node, name string) api.Peer {
	t.Helper()
	for _, p := range query[[]api.Peer](t, n, "peers") {
		if p.Name == name {
			return p
		}
	}
	t.Fatalf("%s has no peer %s", n.Label(), name)
	return api.Peer{}
}

// TestKernelPathOutlivesDaemon: the kernel carries frames in both directions while the daemon of one node is stopped, and while it is
// dead, also after the other nodes see it dead. When the daemon is back, the nodes are one network again.
func TestKernelPathOutlivesDaemon(t *testing.T) {
	t.Parallel()
	nodes, pods := pair(t)
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	waitDatapath(t, nodes[1], "a", api.DatapathKernel)
	pods[0].reaches(t, pods[1].addr)
	pings := pods[0].pinging(t, pods[1].addr)
	pings.waitReplies(t, 20)

	if err := nodes[1].Process().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	pings.wantNoGap(t, 60)
	if err := nodes[1].Process().Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitState(t, nodes[0], "b", api.PeerAlive)
	pings.waitReplies(t, 20)
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	waitDatapath(t, nodes[1], "a", api.DatapathKernel)

	nodes[1].Process().Kill()
	pings.wantNoGap(t, 60)
	waitState(t, nodes[0], "b", api.PeerDead)
	pings.wantNoGap(t, 60)
	up(t, nodes[1], others(nodes, nodes[1])...)
	waitReady(t, nodes)
	pings.waitReplies(t, 20)
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
}

// TestAgreedVNI: nodes that start apart choose different VNIs, none of them a known one. When they meet, they agree on one of the two, and
// keep it when one of them is started again, or the device is deleted.
func TestAgreedVNI(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	up(t, nodes[0], "--init-peers", "2")
	up(t, nodes[1], "--init-peers", "2")
	var chosen []uint32
	for _, n := range nodes {
		waitLinks(t, n, kernelDevice, true)
		chosen = append(chosen, vniOf(t, n))
	}
	if chosen[0] == chosen[1] || slices.Contains(chosen, 0) || slices.Contains(chosen, 6783) {
		t.Fatalf("VNIs %v", chosen)
	}
	do(t, nodes[0], "connect", nodes[1].Addr().String())
	waitReady(t, nodes)
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	agreed := vniOf(t, nodes[0])
	if !slices.Contains(chosen, agreed) || vniOf(t, nodes[1]) != agreed {
		t.Fatalf("VNIs %d and %d after %v", agreed, vniOf(t, nodes[1]), chosen)
	}
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p")}
	pods[0].reaches(t, pods[1].addr)
	pings := pods[0].pinging(t, pods[1].addr)
	pings.waitReplies(t, 20)
	nodes[1].Process().Kill()
	up(t, nodes[1], others(nodes, nodes[1])...)
	waitReady(t, nodes)
	labtest.Run(t, nodes[0].Space, "ip", "link", "del", kernelDevice)
	pings.waitReplies(t, 20)
	waitDatapath(t, nodes[0], "b", api.DatapathKernel)
	waitDatapath(t, nodes[1], "a", api.DatapathKernel)
	for _, n := range nodes {
		if got := vniOf(t, n); got != agreed {
			t.Errorf("%s has the VNI %d, want %d", n.Label(), got, agreed)
		}
	}
}

// wantNoGap waits for the given number of further replies, and fails the test if one of them is missing.
func (g *pinger) wantNoGap(t *testing.T, more int) {
	t.Helper()
	from := len(g.sequence())
	labtest.Until(t, patience, func() error {
		if got := len(g.sequence()) - from; got < more {
			return fmt.Errorf("%d of %d replies", got, more)
		}
		return nil
	})
	seen := g.sequence()[from:]
	if lost := seen[len(seen)-1] - seen[0] + 1 - len(seen); lost > 1 {
		t.Errorf("%d replies of %d are missing", lost, len(seen))
	}
}

var icmpSequence = regexp.MustCompile(`icmp_seq=(\d+) ttl`)

// sequence returns the numbers of the requests that were answered.
func (g *pinger) sequence() (numbers []int) {
	for _, m := range icmpSequence.FindAllStringSubmatch(g.out.String(), -1) {
		n, _ := strconv.Atoi(m[1])
		numbers = append(numbers, n)
	}
	return numbers
}
