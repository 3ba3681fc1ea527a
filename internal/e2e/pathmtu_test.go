package e2e

import (
	"fmt"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// shrunk is the reduced MTU of a link on the path, which is 1,500 bytes at first.
const shrunk = 1300

// TestPathShrinks: the MTU of a link on the path shrinks without any ICMP message. The nodes detect it and inform the
// kernels of the pods; streams continue. Packets that may be fragmented are fragmented.
func TestPathShrinks(t *testing.T) {
	nodes, pods := pair(t, "--datapath", "userspace")
	shrink(t, nodes, pods, shrunk-62)
}

// shrink reduces the MTU between two nodes to shrunk and checks that traffic continues. most is the largest packet of a pod
// that fits afterwards.
func shrink(t *testing.T, nodes []*cluster.Node, pods []*pod, most int) {
	t.Helper()
	transferBoth(t, pods, 1<<20)
	disableBatching(t, nodes) // so that the link drops datagrams that are too large
	for i, n := range nodes {
		labtest.Run(t, n.Lab().Switch(), "ip", "link", "set", "dev", fmt.Sprintf("port%d", i+1), "mtu", fmt.Sprint(shrunk))
	}
	transferBoth(t, pods, 4<<20)
	for i, n := range nodes {
		labtest.Until(t, patience, func() error {
			mtu := mtuTo(t, n, nodes[1-i])
			if mtu < 1100 || mtu > most {
				return fmt.Errorf("the MTU of the path at %s is %d bytes", n.Label(), mtu)
			}
			return nil
		})
	}
	// Without DF the router fragments datagrams: those that fitted before the change, and those longer than any path.
	for _, size := range []string{"1300", "5000"} {
		labtest.Until(t, patience, func() error {
			_, err := pods[0].Run(testContext(t), "ping", "-c", "1", "-W", "1", "-M", "dont", "-s", size, pods[1].addr.String())
			return err
		})
	}
}

// disableBatching makes the hosts of nodes send single datagrams instead of batches, as on a physical link.
func disableBatching(t *testing.T, nodes []*cluster.Node) {
	t.Helper()
	for _, n := range nodes {
		labtest.Run(t, n.Space, "ip", "link", "set", "dev", "eth0", "gso_max_segs", "1")
	}
}

// pingWhole sends an echo request of the size of the MTU, with DF set.
func pingWhole(t *testing.T, from, to *pod, mtu int) error {
	t.Helper()
	_, err := from.Run(testContext(t), "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", fmt.Sprint(mtu-28), to.addr.String())
	return err
}

// mtuTo returns the MTU that a node reports for the path to another one.
func mtuTo(t *testing.T, n, to *cluster.Node) int {
	t.Helper()
	for _, p := range query[[]api.Peer](t, n, "peers") {
		if p.Name == to.Label() {
			return p.MTU
		}
	}
	return 0
}
