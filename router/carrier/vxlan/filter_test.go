package vxlan

import (
	"net/netip"
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
		if err := f.apply(t.Context(), []netip.Addr{netip.MustParseAddr(addr)}); err != nil {
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
