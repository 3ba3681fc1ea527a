package mesh

import (
	"testing"
	"testing/synctest"
	"time"
)

// TestClustersThatMetEarly: two pairs of nodes meet before their ranges are divided, or before the metadata that shows it has arrived.
// Then each pair is a cluster of its own: its nodes are members for each other, and no others are.
func TestClustersThatMetEarly(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var net network
		a := start(t, &net, "a", nodeIdentity(t))
		b := start(t, &net, "b", nodeIdentity(t), a)
		c := start(t, &net, "c", nodeIdentity(t), a)
		d := start(t, &net, "d", nodeIdentity(t), a)
		all := []*node{a, b, c, d}
		for _, n := range all {
			eventually(t, "all are members", func() bool { return len(n.Members()) == 4 })
		}
		for i, n := range all {
			n.SetClusterIDs([]ClusterID{{Range: 1, By: uint32(1 + i/2)}})
		}
		apart := func() bool {
			for i, n := range all {
				if len(n.Members()) != 2 || !n.sees(all[i^1], StateAlive) || len(n.ClusterMismatches()) == 0 {
					return false
				}
			}
			return true
		}
		eventually(t, "the clusters are apart", apart)
		time.Sleep(5 * time.Minute)
		for i, n := range all {
			if members := n.Members(); len(members) != 2 || !n.sees(all[i^1], StateAlive) {
				t.Errorf("after five minutes %s has the members %v", n.cfg.Name, members)
			}
			if !n.sees(n, StateAlive) {
				t.Errorf("%s does not see itself", n.cfg.Name)
			}
			for j, other := range all {
				if id := other.cfg.Identity.ID; n.Knows(id) != (j == i || j == i^1) && j != i {
					t.Errorf("%s knows %s: %v", n.cfg.Name, other.cfg.Name, n.Knows(id))
				}
			}
			if known := n.Known(); len(known) != 2 {
				t.Errorf("%s knows %v", n.cfg.Name, known)
			}
		}
		stopAll(a, b, c, d)
	})
}
