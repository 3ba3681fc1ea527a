package e2e

import (
	"crypto/rand"
	"fmt"
	"maps"
	"net"
	"slices"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// exchangeMarks makes two pods send each other pings and a datagram with marks. It returns these marks and others that occur
// in frames of the pods: MAC addresses and IPv4 headers.
func exchangeMarks(t *testing.T, pods []*pod) marks {
	t.Helper()
	pattern, text := rand.Text()[:16], rand.Text()
	m := marks{"the pings' pattern " + pattern: []byte(pattern), "the datagrams' text " + text: []byte(text)}
	for i, from := range pods {
		to := pods[1-i]
		labtest.Until(t, patience, func() error {
			_, err := from.Run(testContext(t), "ping", "-n", "-c", "3", "-i", "0.1", "-W", "1", "-s", "120",
				"-p", fmt.Sprintf("%x", pattern), to.addr.String())
			return err
		})
		in := listenUDP(t, to)
		out := dialUDP(t, from, in.LocalAddr().(*net.UDPAddr).AddrPort())
		labtest.Until(t, patience, func() error {
			_ = in.SetReadDeadline(time.Now().Add(time.Second))
			_, _ = out.Write([]byte(text))
			_, err := in.Read(make([]byte, 100))
			return err
		})
		m["the MAC of the pod on "+from.node.Label()] = from.mac(t)
		m["the IPv4 header of the pod on "+from.node.Label()] = append(from.addr.AsSlice(), to.addr.AsSlice()...)
	}
	return m
}

// addNames adds the names of nodes, which are in their gossip.
func (m marks) addNames(nodes []*cluster.Node) {
	for _, n := range nodes {
		m["the name of "+n.Label()] = []byte(n.Label())
	}
}

// mac returns the hardware address of the pod's interface.
func (p *pod) mac(t *testing.T) (addr net.HardwareAddr) {
	t.Helper()
	if err := p.Do(func() error {
		link, err := net.InterfaceByName("eth0")
		if err == nil {
			addr = link.HardwareAddr
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return addr
}

// readable fails the test unless every mark occurs in the packets.
func (m marks) readable(t *testing.T, packets []packet) {
	t.Helper()
	found := m.in(packets)
	for _, what := range slices.Sorted(maps.Keys(m)) {
		if found[what] == 0 {
			t.Errorf("%s cannot be read in %d packets", what, len(packets))
		}
	}
}

// sealed fails the test if a mark occurs in the packets, if one of them belongs to the kernel path, or if none is an
// encrypted frame.
func (m marks) sealed(t *testing.T, packets []packet) {
	t.Helper()
	for what, n := range m.in(packets) {
		t.Errorf("%s can be read in %d of %d packets", what, n, len(packets))
	}
	if n := len(datagrams(packets, kernelPort)); n > 0 {
		t.Errorf("%d datagrams of the kernel path", n)
	}
	if n := byType(packets); n[sealedFrame] == 0 || n[plainFrame] > 0 {
		t.Errorf("no encrypted frame, or a plain one; the datagrams by their first byte are %v", n)
	}
}

// First bytes of datagrams to the data port.
const (
	sealedFrame = 0x11
	plainFrame  = 0x15
	initiation  = 0x16
	response    = 0x17
	cookie      = 0x18
	unknown     = 0x19 // unknown-session notice
)

// TestMarksAreReadWithoutSecret is the control experiment for the tests of encryption: all marks in frames occur in the packets
// without a secret, in userspace and on the kernel path. Gossip is sealed even then, under a key that everyone knows.
func TestMarksAreReadWithoutSecret(t *testing.T) {
	t.Parallel()
	for _, datapath := range []api.Datapath{api.DatapathUserspace, api.DatapathKernel} {
		t.Run(string(datapath), func(t *testing.T) {
			t.Parallel()
			nodes := newNodes(t, "readable-a", "readable-b")
			captures := captureUnderlay(t, nodes...)
			start(t, nodes, "--datapath", string(datapath))
			pods := reachingPods(t, nodes)
			waitCarried(t, nodes, datapath, "")
			seen := exchangeMarks(t, pods)
			for i, c := range captures {
				packets := c.packets(t)
				seen.readable(t, packets)
				if n := len(datagrams(packets, kernelPort)); (n > 0) != (datapath == api.DatapathKernel) {
					t.Errorf("%s saw %d datagrams of the kernel path", nodes[i].Label(), n)
				}
			}
		})
	}
}

// TestNothingInPlainText: with a secret, no data of pods is readable on the underlay, from before the nodes start, over the
// crash of one and a reload. The kernel path is never used.
func TestNothingInPlainText(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "readable-a", "readable-b")
	captures := captureUnderlay(t, nodes...)
	secret := newSecret(t)
	startSealed(t, nodes, secret)
	pods := reachingPods(t, nodes)
	waitCarried(t, nodes, api.DatapathUserspace, aes)
	seen := exchangeMarks(t, pods)

	ping := pods[0].pinging(t, pods[1].addr)
	nodes[1].Process().Kill()
	upSealed(t, nodes, nodes[1])
	waitReady(t, nodes)
	ping.waitReplies(t, 10)
	maps.Copy(seen, exchangeMarks(t, pods))
	for _, n := range nodes {
		do(t, n, "reload")
	}
	ping.waitReplies(t, 10)
	maps.Copy(seen, exchangeMarks(t, pods))
	ping.stop(t)
	for _, n := range nodes {
		if err := n.Stop(); err != nil {
			t.Error(err)
		}
	}

	seen.addNames(nodes)
	seen["the secret"], seen["the secret's key"] = []byte(secret), secretKey(t, secret)
	for _, c := range captures {
		seen.sealed(t, c.packets(t))
	}
}

// TestLeftOverDeviceIsNotUsed: the nodes ran without a secret and were killed, so their VXLAN devices still exist and carry
// frames. A node that is started with a secret sends nothing through the device from the moment when its daemon answers.
func TestLeftOverDeviceIsNotUsed(t *testing.T) {
	t.Parallel()
	nodes, pods := pair(t)
	waitCarried(t, nodes, api.DatapathKernel, "")
	ping := pods[0].pinging(t, pods[1].addr)
	ping.waitReplies(t, 5)
	for _, n := range nodes {
		n.Process().Kill()
		if !slices.Contains(links(t, n.Host), kernelDevice) {
			t.Errorf("no device was left on %s", n.Label())
		}
	}
	secret := newSecret(t)
	for _, n := range nodes {
		writeSecret(t, n, secret)
		upSealed(t, nodes, n)
	}
	captures := make([]*capture, len(nodes))
	for i, n := range nodes {
		waitAnswers(t, n)
		captures[i] = captureUnderlay(t, n)[0]
	}
	waitReady(t, nodes)
	ping.waitReplies(t, 10)
	waitCarried(t, nodes, api.DatapathUserspace, aes)
	seen := exchangeMarks(t, pods)
	for _, c := range captures {
		var sent []packet // received packets do not count, because the other node may have sent them before its daemon answered
		for _, p := range c.packets(t) {
			if p.outgoing {
				sent = append(sent, p)
			}
		}
		seen.sealed(t, sent)
	}
}

// waitAnswers waits until the daemon of a node answers requests.
func waitAnswers(t *testing.T, n *cluster.Node) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		var s api.Status
		return n.Query(testContext(t), &s, "status")
	})
}
