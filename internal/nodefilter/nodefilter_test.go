package nodefilter

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/knftables"

	"weft/internal/nftsum"
)

const golden = `add table inet weft-nodes { comment "weft: ports of nodes, closed to pods" ; }
add chain inet weft-nodes forward { type filter hook forward priority 0 ; }
add chain inet weft-nodes input { type filter hook input priority 0 ; }
add set inet weft-nodes nodes4 { type ipv4_addr . inet_proto . inet_service ; }
add set inet weft-nodes nodes6 { type ipv6_addr . inet_proto . inet_service ; }
add set inet weft-nodes own { type inet_proto . inet_service ; }
add counter inet weft-nodes pods
add rule inet weft-nodes forward iifname "weave" ip daddr . meta l4proto . th dport @nodes4 counter name pods drop
add rule inet weft-nodes forward iifname "weave" ip6 daddr . meta l4proto . th dport @nodes6 counter name pods drop
add rule inet weft-nodes input iifname "weave" meta l4proto . th dport @own counter name pods drop
add rule inet weft-nodes input iifname "vweft*" meta l4proto . th dport @own counter name pods drop
add element inet weft-nodes nodes4 { 192.0.2.7 . 6 . 6783 }
add element inet weft-nodes nodes4 { 192.0.2.7 . 17 . 6784 }
add element inet weft-nodes nodes6 { 2001:db8::7 . 6 . 6783 }
add element inet weft-nodes nodes6 { 2001:db8::7 . 17 . 6784 }
add element inet weft-nodes own { 6 . 6783 }
add element inet weft-nodes own { 17 . 6784 }
`

func TestRules(t *testing.T) {
	fake := knftables.NewFake(knftables.InetFamily, Table)
	sum := nftsum.Sum{1}
	n := &NFT{nft: fake, sum: func() (nftsum.Sum, error) { return sum, nil }}
	ports := []Port{{TCP, 6783}, {UDP, 6784}}
	nodes := func(addrs ...string) (list []Node) {
		for _, a := range addrs {
			list = append(list, Node{Addr: netip.MustParseAddr(a), Ports: ports})
		}
		return list
	}
	rules := Ruleset{Bridge: "weave", Links: []string{"vweft*"}, Own: ports}
	for _, list := range [][]Node{nodes("192.0.2.6", "2001:db8::6"), nodes("192.0.2.7", "2001:db8::7")} {
		rules.Nodes = list
		if err := n.Apply(t.Context(), rules); err != nil {
			t.Fatal(err)
		}
	}
	rules.Nodes, rules.KeepNodes = nil, true
	if err := n.Apply(t.Context(), rules); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(golden, fake.Dump()); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if intact, err := n.Intact(); err != nil || !intact {
		t.Errorf("intact: %v, %v", intact, err)
	}
	sum = nftsum.Sum{2}
	if intact, err := n.Intact(); err != nil || intact {
		t.Errorf("intact after a change: %v, %v", intact, err)
	}
	for range 2 {
		if err := n.Remove(t.Context()); err != nil || fake.Dump() != "" {
			t.Errorf("Remove: %v, leaves %q", err, fake.Dump())
		}
	}
}

func TestValidate(t *testing.T) {
	for _, r := range []Ruleset{
		{}, {Bridge: `we"ave`}, {Bridge: "weave", Links: []string{"a b"}}, {Bridge: strings.Repeat("b", 16)},
		{Bridge: "weave", Nodes: []Node{{}}}, {Bridge: "weave", Nodes: []Node{{Addr: netip.MustParseAddr("::ffff:192.0.2.7")}}},
		{Bridge: "weave", Nodes: []Node{{Addr: netip.MustParseAddr("fe80::1%eth0")}}},
	} {
		if r.Validate() == nil {
			t.Errorf("%+v is valid", r)
		}
	}
	fake := knftables.NewFake(knftables.InetFamily, Table)
	if err := (&NFT{nft: fake}).Apply(t.Context(), Ruleset{}); err == nil || fake.Dump() != "" {
		t.Errorf("Apply of an invalid ruleset: %v, %s", err, fake.Dump())
	}
}

func TestNoNFT(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	if _, err := New(t.Context()); !errors.Is(err, ErrNoNFT) {
		t.Errorf("New: %v", err)
	}
}
