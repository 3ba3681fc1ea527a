package e2e

import (
	"fmt"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// shrunk is the MTU of a link on the way once it takes less than the 1,500 bytes of before.
const shrunk = 1300

// TestPathShrinks: a link on the way takes less from one moment to the next and tells nobody. The nodes notice, tell the
// pods' kernels, and streams go on; packets that may be cut are.
func TestPathShrinks(t *testing.T) {
	nodes, pods := pair(t, "--datapath", "userspace")
	shrink(t, nodes, pods, shrunk-62)
}

// shrink has a link between two nodes take only shrunk bytes, of which most are left for a pod's packet.
func shrink(t *testing.T, nodes []*cluster.Node, pods []*pod, most int) {
	t.Helper()
	bothWays(t, pods, 1<<20)
	singly(t, nodes) // those that are too long are lost
	for i, n := range nodes {
		labtest.Run(t, n.Lab().Switch(), "ip", "link", "set", "dev", fmt.Sprintf("port%d", i+1), "mtu", fmt.Sprint(shrunk))
	}
	bothWays(t, pods, 4<<20)
	for i, n := range nodes {
		labtest.Until(t, patience, func() error {
			mtu := mtuTo(t, n, nodes[1-i])
			if mtu < 1100 || mtu > most {
				return fmt.Errorf("%s takes the path to be good for %d bytes", n.Label(), mtu)
			}
			return nil
		})
	}
	// Without DF the router cuts, for a datagram that is longer than any path as well as for one that was not before.
	for _, size := range []string{"1300", "5000"} {
		labtest.Until(t, patience, func() error {
			_, err := pods[0].Run(testContext(t), "ping", "-c", "1", "-W", "1", "-M", "dont", "-s", size, pods[1].addr.String())
			return err
		})
	}
}

// singly has what nodes send leave in single datagrams, as on a wire.
func singly(t *testing.T, nodes []*cluster.Node) {
	t.Helper()
	for _, n := range nodes {
		labtest.Run(t, n.Space, "ip", "link", "set", "dev", "eth0", "gso_max_segs", "1")
	}
}

// pingWhole sends an echo request as long as the MTU, which nobody may cut.
func pingWhole(t *testing.T, from, to *pod, mtu int) error {
	t.Helper()
	_, err := from.Run(testContext(t), "ping", "-n", "-c", "1", "-W", "1", "-M", "do", "-s", fmt.Sprint(mtu-28), to.addr.String())
	return err
}

// mtuTo returns what a node says of the path to another one.
func mtuTo(t *testing.T, n, to *cluster.Node) int {
	t.Helper()
	for _, p := range query[[]api.Peer](t, n, "peers") {
		if p.Name == to.Label() {
			return p.MTU
		}
	}
	return 0
}
