package e2e

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestReclaim: two nodes reclaim the address space of a killed node at the same time, and one of them gets it. When the node
// comes back, it has lost its lease, warns about it and gets a new share.
func TestReclaim(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	c := nodes[2]
	p := attach(t, c, "p")
	if out, err := nodes[0].Do(testContext(t), "reclaim", "c"); err == nil || !strings.Contains(out, "alive") {
		t.Errorf("reclaim of a live node: %q, %v", out, err)
	}
	before := query[api.IPAM](t, nodes[0], "ipam")
	c.Process().Kill()
	waitState(t, nodes[0], "c", api.PeerDead)
	waitState(t, nodes[1], "c", api.PeerDead)
	if warnings := strings.Join(query[api.Status](t, nodes[0], "status").Warnings, " "); !strings.Contains(warnings, "weft reclaim") {
		t.Errorf("warnings %q, want one that names the command", warnings)
	}
	var both sync.WaitGroup
	for _, n := range nodes[:2] {
		both.Go(func() {
			out, err := n.Do(testContext(t), "reclaim", "c")
			t.Logf("%s: %s", n.Label(), out)
			if err != nil {
				t.Error(err)
			}
		})
	}
	both.Wait()
	labtest.Until(t, patience, func() error { return sameOwners(t, nodes[:2], 2) })
	up(t, c, others(nodes, c)...)
	waitReady(t, nodes)
	labtest.Until(t, patience, func() error { return sameOwners(t, nodes, 3) })
	labtest.Until(t, patience, func() error { // no other node has leased the address of the pod, which still runs
		for _, l := range query[[]api.Lease](t, c, "ip", "list") {
			if l.IP.Addr() == p.addr && l.Owner == "netns:"+p.Path()+"/eth0" {
				return nil
			}
		}
		return fmt.Errorf("c has not got %s back", p.addr)
	})
	if len(before.Ranges[0].Owners) != 3 {
		t.Errorf("%d owners before, want 3", len(before.Ranges[0].Owners))
	}
}

// sameOwners returns an error unless all nodes report the same owners, the number of owners is as given, and they own the
// whole range.
func sameOwners(t *testing.T, nodes []*cluster.Node, owners int) error {
	t.Helper()
	first := query[api.IPAM](t, nodes[0], "ipam").Ranges[0].Owners
	var total uint64
	for _, o := range first {
		total += o.Addresses
	}
	if len(first) != owners || total != 1<<20 {
		return fmt.Errorf("%d owners of %d addresses: %v", len(first), total, first)
	}
	for _, n := range nodes[1:] {
		for i, o := range query[api.IPAM](t, n, "ipam").Ranges[0].Owners {
			if i >= len(first) || o.ID != first[i].ID || o.Addresses != first[i].Addresses {
				return fmt.Errorf("%s reports %v, %s %v", nodes[0].Label(), first, n.Label(), o)
			}
		}
	}
	return nil
}
