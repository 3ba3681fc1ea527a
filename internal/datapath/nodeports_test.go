package datapath

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"weft/internal/health"
	"weft/internal/health/healthtest"
	"weft/internal/nodefilter"
	"weft/internal/settings"
)

// TestNodeRules: of each address that members announce, the three ports of this network are closed to pods, and no other ones. An address
// that several members announce is closed once.
func TestNodeRules(t *testing.T) {
	s := &settings.Config{Bridge: "weave", Tap: "weft0", Port: 7000}
	var addrs []netip.Addr
	for _, a := range []string{"2001:db8::7", "192.0.2.7", "::ffff:192.0.2.7", "192.0.2.6", "192.0.2.7"} {
		addrs = append(addrs, netip.MustParseAddr(a))
	}
	r := nodeRules(s, addrs)
	want := []nodefilter.Port{
		{Protocol: nodefilter.TCP, Number: 7000}, {Protocol: nodefilter.UDP, Number: 7000},
		{Protocol: nodefilter.UDP, Number: 7001}, {Protocol: nodefilter.UDP, Number: 7002},
		{Protocol: nodefilter.UDP, Number: 7003},
	}
	if !slices.Equal(r.Own, want) {
		t.Errorf("own ports: %v", r.Own)
	}
	var got []string
	for _, addr := range r.Nodes {
		got = append(got, addr.String())
	}
	if !slices.Equal(got, []string{"192.0.2.6", "192.0.2.7", "2001:db8::7"}) {
		t.Errorf("nodes: %v", got)
	}
	if err := r.Validate(); err != nil {
		t.Error(err)
	}
}

// TestNodePortFindings: rules that are not in force are a condition until they are.
func TestNodePortFindings(t *testing.T) {
	var p nodePorts
	healthtest.Want(t, "in force", p.findings(), "")
	p.err = errors.New("no nft")
	healthtest.Want(t, "not in force", p.findings(), health.NodePortsOpen, "no nft", "nftables")
	p.err = nil
	healthtest.Want(t, "in force again", p.findings(), "")
}
