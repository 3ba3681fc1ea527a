package e2e

import (
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestRoutesOfTheHost: a route that leads away from pods is a condition within seconds, which names it and ends with it. A wider route
// is none. A node starts beside harmless routes, and with pods beside harmful ones.
func TestRoutesOfTheHost(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	n, fresh := nodes[0], nodes[1]
	runLines(t, n, "ip route add 10.0.0.0/8 dev eth0", "ip route add 0.0.0.0/1 via 192.168.77.254", "ip route add blackhole 10.0.0.0/9")
	start(t, []*cluster.Node{n}, "--init-peers", "1")
	p := attach(t, n, "p")
	do(t, n, "expose")
	ping := func() {
		t.Helper()
		labtest.Until(t, patience, func() error { return cluster.Ping(testContext(t), n.Space, p.addr) })
	}
	ping()
	for _, tt := range []struct{ add, del, says string }{
		{"ip route add 10.40.0.0/16 dev eth0", "ip route del 10.40.0.0/16 dev eth0", "10.40.0.0/16 dev eth0"},
		{"ip route add blackhole 10.40.0.0/24", "ip route del blackhole 10.40.0.0/24", "blackhole 10.40.0.0/24"},
		{"ip route add unreachable 10.33.0.0/24", "ip route del unreachable 10.33.0.0/24", "unreachable 10.33.0.0/24"},
		{
			"ip route add 10.32.0.0/11 dev eth0 table 52; ip rule add priority 100 lookup 52", "ip rule del priority 100",
			"10.32.0.0/11 dev eth0 table 52",
		},
		{"ip rule add priority 90 to 10.32.0.0/12 prohibit", "ip rule del priority 90", "rule 90: to 10.32.0.0/12 prohibit"},
		{"ip rule add priority 90 unreachable to 10.40.0.0/16", "ip rule del priority 90", "rule 90: to 10.40.0.0/16 unreachable"},
	} {
		runLines(t, n, tt.add)
		waitCondition(t, n, tt.add, health.RangeRoutedElsewhere, "This host does not reach its pods", tt.says)
		runLines(t, n, tt.del)
		waitCondition(t, n, tt.del, health.RangeRoutedElsewhere)
	}
	ping()
	runLines(t, n, "ip route add 10.40.0.0/16 dev eth0")
	runLines(t, fresh, "ip route add 10.40.0.0/16 dev eth0")
	refused(t, fresh, nil, "overlaps the host's route 10.40.0.0/16 dev eth0")
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	if found, _ := doctor(t, n); found["range"].Result != api.CheckWarn {
		t.Errorf("doctor for a node with pods: %+v", found["range"])
	}
	start(t, []*cluster.Node{n}, "--init-peers", "1")
	waitCondition(t, n, "after the restart", health.RangeRoutedElsewhere, "10.40.0.0/16 dev eth0")
}

// TestRangeThatHidesHosts: a range is refused if it contains a peer that the host reaches by a wider route.
func TestRangeThatHidesHosts(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	runLines(t, n, "ip route add 10.0.0.0/8 via 192.168.77.254")
	refused(t, n, nil, "10.32.0.0/12 contains 10.40.0.1", "10.40.0.1")
}
