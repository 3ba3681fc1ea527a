package e2e

import (
	"slices"
	"testing"

	"weft/internal/api"
)

// TestSealedNodeComesBack kills a node under traffic, which leaves the others with keys that it has forgotten. Once it runs
// again its pods answer, whether the others had noticed or not; meanwhile nothing is sent in the clear.
func TestSealedNodeComesBack(t *testing.T) {
	nodes, pods := sealedPair(t)
	captures := captureUnderlay(t, nodes...)
	seen := talk(t, pods)
	ping := pods[0].pinging(t, pods[1].addr)
	for _, noticed := range []bool{false, true} {
		ping.goesOn(t, 5)
		nodes[1].Process().Kill()
		if noticed {
			waitState(t, nodes[0], "b", api.PeerDead)
		}
		upSealed(t, nodes, nodes[1])
		ping.goesOn(t, 20)
		waitReady(t, nodes)
		waitCarried(t, nodes, api.DatapathUserspace, aes)
	}
	ping.stop(t)
	for _, c := range captures {
		seen.sealed(t, c.packets(t))
	}
}

// TestWholeClusterRestarts: nodes that are all killed at once and come back find each other, their addresses and those of
// their pods again, from disk alone and in whatever order.
func TestWholeClusterRestarts(t *testing.T) {
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	var pods []*pod
	var before [][]api.Lease
	for _, n := range nodes {
		pods = append(pods, attach(t, n, "p"))
		do(t, n, "ip", "allocate", "somebody")
		before = append(before, query[[]api.Lease](t, n, "ip", "list"))
	}
	owners := query[api.IPAM](t, nodes[0], "ipam")
	for _, n := range nodes {
		n.Process().Kill()
	}
	for _, n := range []int{2, 0, 1} {
		up(t, nodes[n], "--init-peers", "3") // no PEER: they know each other from before
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
