package e2e

import (
	"slices"
	"testing"

	"weft/internal/api"
)

// TestSealedNodeComesBack kills a node during traffic, so that the other node has a session that the restarted node does not
// know. After the restart its pods answer, no matter whether the other node has noticed the crash. Nothing is sent in plain
// text meanwhile.
func TestSealedNodeComesBack(t *testing.T) {
	nodes, pods := sealedPair(t)
	captures := captureUnderlay(t, nodes...)
	seen := exchangeMarks(t, pods)
	ping := pods[0].pinging(t, pods[1].addr)
	for _, noticed := range []bool{false, true} {
		ping.waitReplies(t, 5)
		nodes[1].Process().Kill()
		if noticed {
			waitState(t, nodes[0], "b", api.PeerDead)
		}
		upSealed(t, nodes, nodes[1])
		ping.waitReplies(t, 20)
		waitReady(t, nodes)
		waitCarried(t, nodes, api.DatapathUserspace, aes)
	}
	ping.stop(t)
	for _, c := range captures {
		seen.sealed(t, c.packets(t))
	}
}

// TestWholeClusterRestarts kills all nodes and starts them again in another order. They connect and have their addresses and
// leases again, from their state directories alone.
func TestWholeClusterRestarts(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	var pods []*pod
	var before [][]api.Lease
	for _, n := range nodes {
		pods = append(pods, attach(t, n, "p"))
		do(t, n, "ip", "allocate", "operator")
		before = append(before, query[[]api.Lease](t, n, "ip", "list"))
	}
	owners := query[api.IPAM](t, nodes[0], "ipam")
	for _, n := range nodes {
		n.Process().Kill()
	}
	for _, n := range []int{2, 0, 1} {
		up(t, nodes[n], "--init-peers", "3") // no PEER: they remember each other
	}
	waitReady(t, nodes)
	for i, n := range nodes {
		if after := query[[]api.Lease](t, n, "ip", "list"); !slices.Equal(after, before[i]) {
			t.Errorf("leases on %s: %v, before %v", n.Label(), after, before[i])
		}
		pods[i].reaches(t, pods[(i+1)%len(pods)].addr)
	}
	after := query[api.IPAM](t, nodes[1], "ipam")
	for i, o := range after.Ranges[0].Owners {
		if was := owners.Ranges[0].Owners[i]; o.ID != was.ID || o.Addresses != was.Addresses {
			t.Errorf("owner %v, before %v", o, was)
		}
	}
}
