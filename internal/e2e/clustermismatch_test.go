package e2e

import (
	"fmt"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestClustersStaySeparate: two networks that were bootstrapped separately are connected by an operator. Each rejects the
// other, names it in a warning and keeps working.
func TestClustersStaySeparate(t *testing.T) {
	nodes := newNodes(t, "a", "b", "c", "d")
	ours, theirs := nodes[:2], nodes[2:]
	start(t, ours)
	start(t, theirs)
	var pings []*pinger
	for _, side := range [][]*cluster.Node{ours, theirs} {
		pods := reachingPods(t, side)
		pings = append(pings, pods[0].pinging(t, pods[1].addr))
	}
	do(t, ours[0], "connect", theirs[0].Addr().String())
	for _, at := range []struct {
		node *cluster.Node
		name string
	}{{ours[0], "c"}, {theirs[0], "a"}} {
		labtest.Until(t, patience, func() error {
			found := conditions(t, at.node, health.ClusterMismatch)
			if len(found) != 1 || !strings.Contains(found[0].Text, at.name+" (") {
				return fmt.Errorf("%s does not name %s: %+v", at.node.Label(), at.name, found)
			}
			return nil
		})
	}
	for _, p := range pings {
		p.waitReplies(t, 100)
		p.steady(t)
	}
	for _, n := range nodes {
		labtest.Until(t, patience, func() error { // they may have met before the range was divided everywhere
			if peers := query[[]api.Peer](t, n, "peers"); len(peers) != 2 {
				return fmt.Errorf("%s knows %d members, want 2: %v", n.Label(), len(peers), peers)
			}
			return nil
		})
		if owners := query[api.IPAM](t, n, "ipam").Ranges[0].Owners; len(owners) != 2 {
			t.Errorf("%s knows %d owners, want 2", n.Label(), len(owners))
		}
	}
	labtest.Until(t, patience, func() error {
		for _, target := range query[api.Status](t, ours[0], "status").Targets {
			if target.Addr == theirs[0].Addr().String()+":6783" && !strings.Contains(target.Error, "another network") {
				return fmt.Errorf("the error of the target is %q", target.Error)
			}
		}
		return nil
	})
}
