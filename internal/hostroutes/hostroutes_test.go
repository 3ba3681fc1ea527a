package hostroutes_test

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"

	"weft/internal/hostroutes"
)

const bridge = "weave"

var (
	range4 = netip.MustParsePrefix("10.32.0.0/12")
	range6 = netip.MustParsePrefix("fd32::/64")
)

// usual are the rules of a host without policy routing.
var usual = []hostroutes.Rule{
	{Priority: 0, Table: hostroutes.TableLocal, Suppress: -1}, {Priority: 32766, Table: hostroutes.TableMain, Suppress: -1},
	{IPv6: true, Priority: 0, Table: hostroutes.TableLocal, Suppress: -1},
	{IPv6: true, Priority: 32766, Table: hostroutes.TableMain, Suppress: -1},
}

// to returns a route of the main table.
func to(dst, link string) hostroutes.Route {
	return hostroutes.Route{Dst: netip.MustParsePrefix(dst), Kind: hostroutes.Unicast, Table: hostroutes.TableMain, Link: link}
}

func kind(r hostroutes.Route, k hostroutes.Kind) hostroutes.Route { r.Kind = k; return r }

func table(r hostroutes.Route, n int) hostroutes.Route { r.Table = n; return r }

func metric(r hostroutes.Route, n int) hostroutes.Route { r.Metric = n; return r }

// vpn looks into table 52 before the main table, as Tailscale's rule does.
var vpn = append([]hostroutes.Rule{{Priority: 5270, Table: 52, Suppress: -1}}, usual...)

// toPart looks into table 100 for packets to a part of the range.
var toPart = append([]hostroutes.Rule{{Priority: 100, Table: 100, To: netip.MustParsePrefix("10.40.0.0/16"), Suppress: -1}}, usual...)

// wireguard is what wg-quick makes: the main table without its default route, then table 51820.
var wireguard = append([]hostroutes.Rule{
	{Priority: 32764, Table: hostroutes.TableMain, Suppress: 0}, {Priority: 32765, Table: 51820, Suppress: -1},
}, usual...)

// TestElsewhere: a route is a conflict exactly if packets to pods would take it.
func TestElsewhere(t *testing.T) {
	for name, tt := range map[string]struct {
		rules  []hostroutes.Rule
		routes []hostroutes.Route
		want   []string
	}{
		"nothing else":       {usual, nil, nil},
		"a default route":    {usual, []hostroutes.Route{to("0.0.0.0/0", "eth0")}, nil},
		"10/8":               {usual, []hostroutes.Route{to("10.0.0.0/8", "tun0")}, nil},
		"half of everything": {usual, []hostroutes.Route{to("0.0.0.0/1", "tun0"), to("128.0.0.0/1", "tun0")}, nil},
		"a wider blackhole":  {usual, []hostroutes.Route{kind(to("10.0.0.0/8", ""), hostroutes.Blackhole)}, nil},
		"beside the range":   {usual, []hostroutes.Route{to("10.48.0.0/16", "tun0")}, nil},
		"a part": {
			usual, []hostroutes.Route{to("10.40.0.0/16", "tun0")},
			[]string{"10.40.0.0/16 takes the host's route 10.40.0.0/16 dev tun0"},
		},
		"a part to bridge": {usual, []hostroutes.Route{to("10.40.0.0/16", bridge)}, nil},
		"a blackhole": {
			usual, []hostroutes.Route{kind(to("10.40.0.0/16", ""), hostroutes.Blackhole)},
			[]string{"10.40.0.0/16 takes the host's route blackhole 10.40.0.0/16"},
		},
		"unreachable": {
			usual, []hostroutes.Route{kind(to("10.40.1.0/24", ""), hostroutes.Unreachable)},
			[]string{"10.40.1.0/24 takes the host's route unreachable 10.40.1.0/24"},
		},
		"throw": {
			usual, []hostroutes.Route{kind(to("10.40.0.0/16", ""), hostroutes.Throw)},
			[]string{"10.40.0.0/16 has no route"},
		},
		"an address": {
			usual, []hostroutes.Route{table(kind(to("10.32.5.5/32", "eth1"), hostroutes.Local), hostroutes.TableLocal)},
			[]string{"10.32.5.5/32 takes the host's route local 10.32.5.5/32 dev eth1"},
		},
		"the own address": {usual, []hostroutes.Route{table(kind(to("10.32.0.1/32", bridge), hostroutes.Local), hostroutes.TableLocal)}, nil},
		"the same, earlier": {
			usual, []hostroutes.Route{to("10.32.0.0/12", "tun0")},
			[]string{"10.32.0.0/12 takes the host's route 10.32.0.0/12 dev tun0"},
		},
		"the same, worse": {usual, []hostroutes.Route{metric(to("10.32.0.0/12", "tun0"), 50)}, nil},
		"a rule, a part": {
			vpn, []hostroutes.Route{table(to("10.33.0.0/16", "tailscale0"), 52)},
			[]string{"10.33.0.0/16 takes the host's route 10.33.0.0/16 dev tailscale0 table 52"},
		},
		"a rule, wider": {
			vpn, []hostroutes.Route{table(to("10.0.0.0/8", "tailscale0"), 52)},
			[]string{"10.32.0.0/12 takes the host's route 10.0.0.0/8 dev tailscale0 table 52"},
		},
		"a table without use": {usual, []hostroutes.Route{table(to("10.33.0.0/16", "tailscale0"), 52)}, nil},
		"a rule for a part": {
			toPart, []hostroutes.Route{table(to("0.0.0.0/0", "tun0"), 100)},
			[]string{"10.40.0.0/16 takes the host's route 0.0.0.0/0 dev tun0 table 100"},
		},
		"a rule that drops": {
			append([]hostroutes.Rule{{Priority: 50, Drops: hostroutes.Prohibit, Suppress: -1}}, usual...), nil,
			[]string{"10.32.0.0/12 meets the host's rule 50: to 0.0.0.0/0 prohibit"},
		},
		"a rule that drops a part": {
			append([]hostroutes.Rule{{Priority: 50, Drops: hostroutes.Blackhole, To: netip.MustParsePrefix("10.40.0.0/16")}}, usual...), nil,
			[]string{"10.40.0.0/16 meets the host's rule 50: to 10.40.0.0/16 blackhole"},
		},
		"a rule that drops the rest": {append([]hostroutes.Rule{{Priority: 40000, Drops: hostroutes.Unreachable}}, usual...), nil, nil},
		"wg-quick":                   {wireguard, []hostroutes.Route{to("0.0.0.0/0", "eth0"), table(to("0.0.0.0/0", "wg0"), 51820)}, nil},
	} {
		tables := hostroutes.Tables{Rules: tt.rules, Routes: tt.routes}.With(hostroutes.Connected(range4, bridge))
		var got []string
		for _, c := range hostroutes.Elsewhere(tables, range4, bridge) {
			got = append(got, c.String())
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestElsewhereIPv6: the kernel's route has metric 256, and another of the same length with 1024 does no harm.
func TestElsewhereIPv6(t *testing.T) {
	for name, tt := range map[string]struct {
		route hostroutes.Route
		harm  bool
	}{
		"a part": {to("fd32::8000:0:0:0/65", "tun0"), true}, "wider": {to("fd00::/8", "tun0"), false},
		"the same": {metric(to("fd32::/64", "tun0"), 1024), false}, "the same, better": {metric(to("fd32::/64", "tun0"), 1), true},
		"IPv4": {to("10.40.0.0/16", "tun0"), false},
	} {
		tables := hostroutes.Tables{Rules: usual, Routes: []hostroutes.Route{tt.route}}.With(hostroutes.Connected(range6, bridge))
		if got := hostroutes.Elsewhere(tables, range6, bridge); (len(got) > 0) != tt.harm {
			t.Errorf("%s: %v", name, got)
		}
	}
}

// TestWithoutConnectedRoute: a range that the default route takes is a conflict of a host that has an address in it.
func TestWithoutConnectedRoute(t *testing.T) {
	tables := hostroutes.Tables{Rules: usual, Routes: []hostroutes.Route{to("0.0.0.0/0", "eth0")}}
	const want = "10.32.0.0/12 takes the host's route 0.0.0.0/0 dev eth0"
	if got := hostroutes.Elsewhere(tables, range4, bridge); len(got) != 1 || got[0].String() != want {
		t.Errorf("%v", got)
	}
}

// TestHidden: peers and gateways inside the range are hidden, unless a longer prefix leads to them.
func TestHidden(t *testing.T) {
	gateway := to("0.0.0.0/0", "eth0")
	gateway.Gateway = netip.MustParseAddr("10.33.0.1")
	peers := []netip.Addr{netip.MustParseAddr("10.40.0.9"), netip.MustParseAddr("192.0.2.1")}
	tables := hostroutes.Tables{Rules: usual, Routes: []hostroutes.Route{to("10.0.0.0/8", "eth0"), gateway}}
	got := hostroutes.Hidden(tables.With(hostroutes.Connected(range4, bridge)), range4, bridge, peers)
	if want := []netip.Addr{peers[0], gateway.Gateway}; len(got) != 2 || got[0] != want[0] || got[1] != want[1] {
		t.Errorf("%v, want %v", got, want)
	}
	tables.Routes = append(tables.Routes, to("10.40.0.0/24", "eth0"), to("10.33.0.0/24", "eth0"))
	if got := hostroutes.Hidden(tables.With(hostroutes.Connected(range4, bridge)), range4, bridge, peers); len(got) != 0 {
		t.Errorf("with longer prefixes: %v", got)
	}
}
