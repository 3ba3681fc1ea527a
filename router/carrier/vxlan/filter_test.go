package vxlan

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/knftables"
)

const goldenFilter = `add table inet weft-weftvx { comment "weft: peers that may send to the VXLAN device" ; }
add chain inet weft-weftvx forward { type filter hook forward priority 0 ; }
add chain inet weft-weftvx input { type filter hook input priority 0 ; }
add chain inet weft-weftvx local
add chain inet weft-weftvx output { type filter hook output priority 0 ; }
add chain inet weft-weftvx outside
add chain inet weft-weftvx vxlan
add set inet weft-weftvx peers6 { type ipv6_addr ; }
add set inet weft-weftvx received6 { type ipv6_addr ; flags dynamic ; size 65536 ; }
add set inet weft-weftvx sent6 { type ipv6_addr ; flags dynamic ; size 65536 ; }
add counter inet weft-weftvx forwarded
add counter inet weft-weftvx local
add counter inet weft-weftvx pods
add counter inet weft-weftvx tunnel
add counter inet weft-weftvx unknown
add counter inet weft-weftvx users
add counter inet weft-weftvx vni
add rule inet weft-weftvx forward udp dport 6785 ip6 daddr @peers6 jump outside
add rule inet weft-weftvx input udp dport 6785 jump vxlan
add rule inet weft-weftvx local udp sport != 512-1023 counter name local drop
add rule inet weft-weftvx local update @sent6 { ip6 daddr counter }
add rule inet weft-weftvx output udp dport 6785 ip6 daddr @peers6 jump local
add rule inet weft-weftvx outside iifname "weave" counter name pods drop
add rule inet weft-weftvx outside ip6 saddr != @peers6 counter name forwarded drop
add rule inet weft-weftvx vxlan iifname "weave" counter name pods drop
add rule inet weft-weftvx vxlan ip6 saddr != @peers6 counter name unknown drop
add rule inet weft-weftvx vxlan udp sport != 512-1023 counter name users drop
add rule inet weft-weftvx vxlan @th,96,24 != 0xabcdef counter name vni drop
add rule inet weft-weftvx vxlan update @received6 { ip6 saddr counter }
add element inet weft-weftvx peers6 { fd77::2 }
`

func TestFilter(t *testing.T) {
	fake := knftables.NewFake(knftables.InetFamily, tableName("weftvx"))
	f := &filter{nft: fake, bridge: "weave", port: 6785, vni: 0xabcdef}
	for _, addr := range []string{"fd77::1", "fd77::2", "fd77::2"} { // each replaces the one before
		if err := f.apply(t.Context(), senders{peers: []netip.Addr{netip.MustParseAddr(addr)}}); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(goldenFilter, fake.Dump()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	for range 2 {
		if err := f.remove(t.Context()); err != nil || fake.Dump() != "" {
			t.Errorf("remove: %v, leaves %q", err, fake.Dump())
		}
	}
}

// TestFilterOfPairs: pairs have rules of both families before those of other peers, and nothing else of the other family comes in.
func TestFilterOfPairs(t *testing.T) {
	fake := knftables.NewFake(knftables.InetFamily, tableName("weftvx"))
	f := &filter{nft: fake, bridge: "weave", port: 6785, vni: 0xabcdef, is4: true, group: 7}
	err := f.apply(t.Context(), senders{
		peers:    []netip.Addr{netip.MustParseAddr("192.0.2.1")},
		pairs:    []netip.AddrPort{netip.MustParseAddrPort("192.0.2.2:40000"), netip.MustParseAddrPort("[fd77::2]:6785")},
		expected: []netip.Addr{netip.MustParseAddr("192.0.2.2")},
	})
	if err != nil {
		t.Fatal(err)
	}
	rules := func(chain string) (lines []string) {
		for line := range strings.Lines(fake.Dump()) {
			if rule, ok := strings.CutPrefix(strings.TrimSpace(line), "add rule inet weft-weftvx "+chain+" "); ok {
				lines = append(lines, rule)
			}
		}
		return lines
	}
	for chain, want := range map[string][]string{
		"vxlan": {
			`iifname "weave" counter name pods drop`,
			"ip saddr . udp sport @pairs4 goto pair",
			"ip saddr @expected4 @th,224,16 0x88b5 limit rate 100/second burst 100 packets log group 7 snaplen 126",
			"ip6 saddr . udp sport @pairs6 goto pair",
			"ip6 saddr @expected6 @th,224,16 0x88b5 limit rate 100/second burst 100 packets log group 7 snaplen 126",
			"meta nfproto ipv6 counter name unknown drop",
			"ip saddr != @peers4 counter name unknown drop",
			"udp sport != 512-1023 counter name users drop",
			"@th,96,24 != 0xabcdef counter name vni drop",
			"update @received4 { ip saddr counter }",
		},
		"pair":    {"@th,96,24 0xabcdef counter name vni drop"},
		"to-pair": {"udp sport 6785 accept"},
		"through-pair": {
			`iifname "weave" udp sport 6785 counter name pods drop`, "udp sport 6785 counter name forwarded drop",
		},
		"output": {
			"ip6 daddr . udp dport @pairs6 jump to-pair", "ip daddr . udp dport @pairs4 jump to-pair",
			"udp dport 6785 ip daddr @peers4 jump local",
		},
		"forward": {
			"ip6 daddr . udp dport @pairs6 jump through-pair", "ip daddr . udp dport @pairs4 jump through-pair",
			"udp dport 6785 ip daddr @peers4 jump outside",
		},
	} {
		if diff := cmp.Diff(want, rules(chain)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", chain, diff)
		}
	}
}
