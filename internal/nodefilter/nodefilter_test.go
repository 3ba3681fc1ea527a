package nodefilter

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/knftables"

	"weft/internal/nftsum"
)

const golden = `add table inet weft-nodes { comment "weft: ports of nodes, closed to pods" ; }
add chain inet weft-nodes forward { type filter hook forward priority 0 ; }
add chain inet weft-nodes input { type filter hook input priority 0 ; }
add set inet weft-nodes nodes4 { type ipv4_addr ; }
add set inet weft-nodes nodes6 { type ipv6_addr ; }
add set inet weft-nodes own { type inet_proto . inet_service ; }
add counter inet weft-nodes pods
add rule inet weft-nodes forward iifname "weave" ip daddr @nodes4 meta l4proto . th dport @own counter name pods drop
add rule inet weft-nodes forward iifname "weave" ip6 daddr @nodes6 meta l4proto . th dport @own counter name pods drop
add rule inet weft-nodes input iifname "weave" meta l4proto . th dport @own counter name pods drop
add rule inet weft-nodes input iifname "vweft*" meta l4proto . th dport @own counter name pods drop
add element inet weft-nodes nodes4 { 192.0.2.7 }
add element inet weft-nodes nodes6 { 2001:db8::7 }
add element inet weft-nodes own { 6 . 6783 }
add element inet weft-nodes own { 17 . 6784 }
`

func TestRules(t *testing.T) {
	fake := knftables.NewFake(knftables.InetFamily, Table)
	sum := nftsum.Sum{1}
	n := &NFT{nft: fake, sum: func() (nftsum.Sum, error) { return sum, nil }}
	ports := []Port{{TCP, 6783}, {UDP, 6784}}
	nodes := func(addrs ...string) (list []netip.Addr) {
		for _, a := range addrs {
			list = append(list, netip.MustParseAddr(a))
		}
		return list
	}
	rules := Ruleset{Bridge: "weave", Links: []string{"vweft*"}, Own: ports}
	for _, list := range [][]netip.Addr{nodes("192.0.2.6", "2001:db8::6"), nodes("192.0.2.7", "2001:db8::7")} {
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

// TestChangesOnly: a node that comes or goes changes one element, also among thousands; and everything is set again when another program
// has changed the table, or where anything else differs.
func TestChangesOnly(t *testing.T) {
	before := Ruleset{Bridge: "weave", Own: []Port{{TCP, 6783}}}
	for i := range 5000 {
		before.Nodes = append(before.Nodes, netip.AddrFrom4([4]byte{192, 0, byte(i >> 8), byte(i)}))
	}
	after := before
	after.Nodes = append(slices.Clone(before.Nodes[1:]), netip.MustParseAddr("2001:db8::7"))
	sum := nftsum.Sum{1}
	fake := knftables.NewFake(knftables.InetFamily, Table)
	n := &NFT{nft: fake, sum: func() (nftsum.Sum, error) { return sum, nil }}
	set := func(r Ruleset, operations int) {
		t.Helper()
		if err := n.Apply(t.Context(), r); err != nil {
			t.Fatal(err)
		}
		if got := fake.LastTransaction.NumOperations(); operations > 0 && got != operations || operations == 0 && got < len(r.Nodes) {
			t.Errorf("%d operations, want %d (0: all)", got, operations)
		}
		if got := strings.Count(fake.Dump(), "add element inet weft-nodes nodes"); got != len(r.Nodes) {
			t.Errorf("%d nodes in the table, want %d", got, len(r.Nodes))
		}
	}
	set(before, 0)
	set(after, 2)
	set(before, 2)
	sum = nftsum.Sum{2} // another program
	set(after, 0)
	before.Own = append(before.Own, Port{UDP, 6783})
	set(before, 0)
}

func TestValidate(t *testing.T) {
	for _, r := range []Ruleset{
		{}, {Bridge: `we"ave`}, {Bridge: "weave", Links: []string{"a b"}}, {Bridge: strings.Repeat("b", 16)},
		{Bridge: "weave", Nodes: []netip.Addr{{}}}, {Bridge: "weave", Nodes: []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.7")}},
		{Bridge: "weave", Nodes: []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}},
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
