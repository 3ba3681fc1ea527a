package node

import (
	"net/netip"
	"runtime"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"weft/internal/health"
	"weft/internal/peer"
	"weft/internal/peermetrics"
	"weft/mesh"
	"weft/mesh/topology"
	"weft/router"
	"weft/router/carrier"
)

// memberList is a membership in memory.
type memberList []mesh.Member

func (l memberList) Members() []mesh.Member { return l }

// kernelPeer is a datapath of which the kernel carries one peer.
type kernelPeer peer.ID

func (k kernelPeer) Carrier(id peer.ID) carrier.Kind {
	if id == peer.ID(k) {
		return carrier.VXLAN
	}
	return carrier.Userspace
}

// Stats returns none: the datapath is not up.
func (kernelPeer) Stats() (router.Stats, bool) { return router.Stats{}, false }

// KernelCounts returns none.
func (kernelPeer) KernelCounts() map[peer.ID]carrier.Counts { return nil }

// fixed is a health.Source of constant findings.
type fixed []health.Finding

func (f fixed) Findings() []health.Finding { return f }

// unmet is a health.Requirement that is not met.
type unmet struct{}

func (unmet) Missing() string { return "rules" }

// TestNodeMetrics: the metrics that only the whole node knows.
func TestNodeMetrics(t *testing.T) {
	addr := netip.MustParseAddr("192.0.2.2")
	members := memberList{
		{ID: peer.ID{1}, Name: "a", Self: true, State: mesh.StateAlive},
		{ID: peer.ID{2}, Name: "b", State: mesh.StateAlive, Addr: addr, Data: 6784, Route: topology.Route{Hops: 1}},
		{ID: peer.ID{3}, Name: "c", State: mesh.StateAlive, Addr: addr, Data: 7, Route: topology.Route{Hops: 2, Via: peer.ID{2}}},
		{ID: peer.ID{4}, Name: "d", State: mesh.StateAlive, Addr: addr, Data: 8},
		{ID: peer.ID{5}, Name: "e", State: mesh.StateDead, Addr: addr, Data: 9},
	}
	c := nodeCollector{"v1", health.New(health.Config{
		Sources:      []health.Source{fixed{{Code: health.NoSecret}, {Code: health.PeerDead, Key: "1"}, {Code: health.PeerDead, Key: "2"}}},
		Requirements: []health.Requirement{unmet{}},
	})}
	id := func(n byte) string { return peer.ID{n}.String() }
	want := `
# HELP weft_build_info Always 1: the version of weft, and of Go that built it.
# TYPE weft_build_info gauge
weft_build_info{goversion="` + runtime.Version() + `",version="v1"} 1
# HELP weft_ready 1 if a pod could join now, else 0.
# TYPE weft_ready gauge
weft_ready 0
# HELP weft_warnings Number of conditions; "weft status" shows each with its remedy.
# TYPE weft_warnings gauge
weft_warnings 3
`
	if err := testutil.CollectAndCompare(c, strings.NewReader(want), "weft_build_info", "weft_ready", "weft_warnings"); err != nil {
		t.Error(err)
	}
	want = `
# HELP weft_peer_info Always 1: the name and the data address of a live peer.
# TYPE weft_peer_info gauge
weft_peer_info{addr="192.0.2.2:6784",name="b",peer="` + id(2) + `"} 1
weft_peer_info{addr="192.0.2.2:7",name="c",peer="` + id(3) + `"} 1
weft_peer_info{addr="192.0.2.2:8",name="d",peer="` + id(4) + `"} 1
# HELP weft_peer_kernel 1 if the kernel carries the frames to a live peer, 0 if userspace does.
# TYPE weft_peer_kernel gauge
weft_peer_kernel{peer="` + id(2) + `"} 1
weft_peer_kernel{peer="` + id(3) + `"} 0
weft_peer_kernel{peer="` + id(4) + `"} 0
# HELP weft_peer_link Whether a live peer is reached by this kind of link (direct, relay, none): 1 or 0.
# TYPE weft_peer_link gauge
weft_peer_link{link="direct",peer="` + id(2) + `"} 1
weft_peer_link{link="relay",peer="` + id(2) + `"} 0
weft_peer_link{link="none",peer="` + id(2) + `"} 0
weft_peer_link{link="direct",peer="` + id(3) + `"} 0
weft_peer_link{link="relay",peer="` + id(3) + `"} 1
weft_peer_link{link="none",peer="` + id(3) + `"} 0
weft_peer_link{link="direct",peer="` + id(4) + `"} 0
weft_peer_link{link="relay",peer="` + id(4) + `"} 0
weft_peer_link{link="none",peer="` + id(4) + `"} 1
`
	live := peermetrics.New(peers{members, kernelPeer{2}}, 3)
	if err := testutil.CollectAndCompare(live, strings.NewReader(want), "weft_peer_info", "weft_peer_link", "weft_peer_kernel"); err != nil {
		t.Error(err)
	}
}

// TestConditionMetric: there is a series for each code, and 1 for those that hold.
func TestConditionMetric(t *testing.T) {
	c := nodeCollector{"v1", health.New(health.Config{Sources: []health.Source{fixed{{Code: health.NoSecret}}}})}
	if n, want := testutil.CollectAndCount(c, "weft_condition"), len(health.Definitions()); n != want {
		t.Errorf("%d series of weft_condition, want %d", n, want)
	}
	registered := testutil.ToFloat64(single{c, string(health.NoSecret)})
	if other := testutil.ToFloat64(single{c, string(health.PeerDead)}); registered != 1 || other != 0 {
		t.Errorf("%s is %v, %s is %v; want 1 and 0", health.NoSecret, registered, health.PeerDead, other)
	}
}
