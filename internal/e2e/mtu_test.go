package e2e

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestMTUOfRunningPods: daemons are started again with a smaller MTU, and with a larger one, while a stream runs between pods on
// two nodes. The pods follow: the stream continues, and packets of the new size pass with DF set, but none above it. Fragmented
// packets pass between pods of one host, also through br_netfilter.
func TestMTUOfRunningPods(t *testing.T) {
	t.Parallel()
	for _, datapath := range []string{"userspace", "kernel"} {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			nodes, pods := pair(t, "--datapath", datapath)
			near := attach(t, nodes[0], "q")
			small := attach(t, nodes[0], "own")
			setMTU(t, small, 1300) // by its own configuration
			filterBridged(t, nodes[0].Host)
			s := startFlow(t, pods[0], pods[1])
			for _, mtu := range []int{1400, 1430} {
				for _, n := range nodes {
					if err := n.Stop(); err != nil {
						t.Fatal(err)
					}
					up(t, n, append([]string{"--datapath", datapath, "--mtu", fmt.Sprint(mtu)}, others(nodes, n)...)...)
				}
				waitReady(t, nodes)
				for _, p := range []*pod{pods[0], pods[1], near} {
					waitMTU(t, p.Space, "eth0", mtu)
				}
				waitMTU(t, nodes[0].Space, "weave", mtu)
				waitMTU(t, nodes[0].Space, "weft0", mtu)
				s.waitBytes(t, 8<<20)
				labtest.Until(t, patience, func() error { return pingWhole(t, pods[0], pods[1], mtu) })
				if pingWhole(t, pods[0], pods[1], mtu+1) == nil {
					t.Errorf("a packet of %d bytes passed", mtu+1)
				}
				pingFragments(t, pods[0], near)
				pingFragments(t, pods[0], pods[1])
			}
			waitMTU(t, small.Space, "eth0", 1300)
		})
	}
}

// TestSecretTurnedOnUnderPods: daemons without a secret are started again with one, which takes 16 bytes of each packet, while a
// stream runs between pods.
func TestSecretTurnedOnUnderPods(t *testing.T) {
	t.Parallel()
	nodes, pods := pair(t)
	s := startFlow(t, pods[0], pods[1])
	s.waitBytes(t, 1<<20)
	secret := newSecret(t)
	for _, n := range nodes {
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
	}
	startSealed(t, nodes, secret)
	waitCarried(t, nodes, api.DatapathUserspace, aes)
	for _, p := range pods {
		waitMTU(t, p.Space, "eth0", 1438-16)
	}
	s.waitBytes(t, 8<<20)
}

// TestUnderlayMTUChanges: the MTU of the interface that a running node uses goes down and up. Pods follow it. The check with DF set
// uses a new pod, since kernels keep a path MTU that they have learned for ten minutes.
func TestUnderlayMTUChanges(t *testing.T) {
	t.Parallel()
	for _, datapath := range []string{"userspace", "kernel"} {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			nodes, pods := pair(t, "--datapath", datapath)
			changeUnderlayMTU(t, nodes, pods)
		})
	}
}

// TestMTUBelowIPv6: the MTU of the underlay is too small for IPv6 for a while, so that the kernel forgets the links' settings of IPv6.
// They are set again, and the node does not claim that another program has changed them.
func TestMTUBelowIPv6(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	start(t, []*cluster.Node{n}, "--init-peers", "1")
	p := attach(t, n, "p")
	shows(t, n, "sysctl -n net.ipv6.conf.weave.accept_redirects", "0")
	for _, mtu := range []int{1200, 1500} {
		labtest.Run(t, n.Space, "ip", "link", "set", "eth0", "mtu", fmt.Sprint(mtu))
		waitMTU(t, p.Space, "eth0", mtu-62)
		shows(t, n, "ip link show weft0", fmt.Sprintf("mtu %d", mtu-62))
	}
	shows(t, n, "sysctl -n net.ipv6.conf.weft0.disable_ipv6", "1")
	shows(t, n, "sysctl -n net.ipv6.conf.weave.accept_redirects", "0")
	if found := conditions(t, n, health.BridgeRepaired); len(found) != 0 {
		t.Errorf("conditions: %+v", found)
	}
}

func changeUnderlayMTU(t *testing.T, nodes []*cluster.Node, pods []*pod) {
	t.Helper()
	s := startFlow(t, pods[0], pods[1])
	for _, mtu := range []int{1400, 1500} {
		for i, n := range nodes {
			labtest.Run(t, n.Space, "ip", "link", "set", "eth0", "mtu", fmt.Sprint(mtu))
			labtest.Run(t, n.Lab().Switch(), "ip", "link", "set", fmt.Sprintf("port%d", i+1), "mtu", fmt.Sprint(mtu))
		}
		for i, n := range nodes {
			waitMTU(t, pods[i].Space, "eth0", mtu-62)
			if got := query[api.Status](t, n, "status").MTU; got != mtu-62 {
				t.Errorf("the status of %s has MTU %d, want %d", n.Label(), got, mtu-62)
			}
		}
		s.waitBytes(t, 8<<20)
		labtest.Until(t, 2*patience, func() error { // a search that begins before all links have the MTU ends with less, and is repeated
			if got := mtuTo(t, nodes[0], nodes[1]); got != mtu-62 {
				return fmt.Errorf("the path takes %d bytes, want %d", got, mtu-62)
			}
			return nil
		})
		fresh := attach(t, nodes[0], fmt.Sprintf("q%d", mtu))
		fresh.reaches(t, pods[1].addr)
		labtest.Until(t, patience, func() error { return pingWhole(t, fresh, pods[1], mtu-62) })
	}
}

// TestPodsOutOfReach: a daemon that sees no namespaces of pods, as one in a container, cannot change their MTU. Links stay as large
// as the pods', longer packets are answered by ICMP messages, and a condition names the pods.
func TestPodsOutOfReach(t *testing.T) {
	t.Parallel()
	for _, datapath := range []string{"userspace", "kernel"} {
		t.Run(datapath, func(t *testing.T) {
			t.Parallel()
			nodes, pods := pair(t, "--datapath", datapath)
			near := attach(t, nodes[0], "q")
			filterBridged(t, nodes[0].Host)
			for i, n := range nodes {
				if err := n.Stop(); err != nil {
					t.Fatal(err)
				}
				labtest.Run(t, n.Space, "ip", "link", "set", "eth0", "mtu", "1400")
				labtest.Run(t, n.Lab().Switch(), "ip", "link", "set", fmt.Sprintf("port%d", i+1), "mtu", "1400")
			}
			for _, n := range nodes {
				upHidden(t, n, append([]string{"--datapath", datapath}, others(nodes, n)...)...)
			}
			waitReady(t, nodes)
			for i, n := range nodes {
				found := conditions(t, n, health.PodMTULarge)
				if len(found) != 1 || !strings.Contains(found[0].Text, pods[i].addr.String()) {
					t.Errorf("conditions of %s: %+v, want one that names %s", n.Label(), found, pods[i].addr)
				}
				waitMTU(t, n.Space, "weave", 1438)
				if checks, _ := doctor(t, n); !strings.Contains(checks["mtu"].Detail, "larger MTU than the 1338 bytes") {
					t.Errorf("doctor on %s: %+v", n.Label(), checks["mtu"])
				}
			}
			startFlow(t, pods[0], pods[1]).waitBytes(t, 8<<20)
			pingFragments(t, pods[0], near)
			pingFragments(t, pods[0], pods[1])
		})
	}
}

// upHidden starts the daemon of a node with mounts and processes of its own, so that it sees no network namespace but its own.
func upHidden(t *testing.T, n *cluster.Node, args ...string) {
	t.Helper()
	argv := []string{
		"unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh", "-c", `umount -l /run/netns/* /run/netns; exec "$@"`,
		"sh", filepath.Join(bin, "weft"), "up", "--name", n.Label(), "--state-dir", n.StateDir(), "--socket", n.Socket(),
	}
	labtest.Start(t, n.Host, nettest.ProcessConfig{Name: "weft", Argv: append(argv, args...)})
}

// filterBridged passes the frames of a host's bridges through its IP filters, where the kernel can.
func filterBridged(t *testing.T, h *nettest.Host) {
	t.Helper()
	const sysctl = "net.bridge.bridge-nf-call-iptables"
	if _, err := h.Run(testContext(t), "sysctl", "-w", sysctl+"=1"); err != nil {
		labtest.Missing(t, "br_netfilter")
	}
}

// waitMTU waits until an interface has the MTU.
func waitMTU(t *testing.T, s *nettest.Space, ifname string, mtu int) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		out, err := s.Run(testContext(t), "ip", "link", "show", ifname)
		if err == nil && !slices.Contains(strings.Fields(out), fmt.Sprint(mtu)) {
			err = fmt.Errorf("want MTU %d: %s", mtu, out)
		}
		return err
	})
}

// setMTU sets the MTU of both ends of a pod's pair.
func setMTU(t *testing.T, p *pod, mtu int) {
	t.Helper()
	labtest.Run(t, p.Space, "ip", "link", "set", "eth0", "mtu", fmt.Sprint(mtu))
}

// pingFragments waits for the reply to an echo request that is longer than any MTU.
func pingFragments(t *testing.T, from, to *pod) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		_, err := from.Run(testContext(t), "ping", "-n", "-c", "1", "-W", "1", "-M", "dont", "-s", "4000", to.addr.String())
		return err
	})
}

// flow is a TCP connection between two pods on which data flows until the test ends.
type flow struct{ received atomic.Int64 }

// startFlow connects two pods, and sends as much as possible.
func startFlow(t *testing.T, from, to *pod) *flow {
	t.Helper()
	var l net.Listener
	var out net.Conn
	ctx := testContext(t)
	if err := to.Do(func() (err error) {
		l, err = new(net.ListenConfig).Listen(ctx, "tcp", netip.AddrPortFrom(to.addr, 0).String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	if err := from.Do(func() (err error) {
		out, err = new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		return err
	}); err != nil {
		t.Fatal(err)
	}
	in, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = out.Close(), in.Close() })
	s := &flow{}
	go func() { // ends with the connection
		for b := make([]byte, 64<<10); ; {
			if _, err := out.Write(b); err != nil {
				return
			}
		}
	}()
	go func() { _, _ = io.Copy(s, in) }()
	return s
}

// Write counts what has arrived.
func (s *flow) Write(b []byte) (int, error) {
	s.received.Add(int64(len(b)))
	return len(b), nil
}

// waitBytes waits until the given number of further bytes have arrived.
func (s *flow) waitBytes(t *testing.T, more int64) {
	t.Helper()
	before := s.received.Load()
	labtest.Until(t, patience, func() error {
		if n := s.received.Load() - before; n < more {
			return fmt.Errorf("%d bytes arrived, want %d", n, more)
		}
		return nil
	})
}
