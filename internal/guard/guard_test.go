package guard

import (
	"crypto/sha256"
	"flag"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/knftables"

	"weft/internal/ether"
	"weft/internal/nftsum"
)

var update = flag.Bool("update", false, "write the golden ruleset")

// newFake returns a Firewall with its table in memory.
func newFake() (*NFT, *knftables.Fake) {
	fake, host := knftables.NewFake(knftables.BridgeFamily, Table), knftables.NewFake(knftables.InetFamily, Table)
	sumOf := func(f *knftables.Fake) func() (nftsum.Sum, error) {
		return func() (nftsum.Sum, error) { return sha256.Sum256([]byte(f.Dump())), nil }
	}
	return &NFT{nft: fake, sum: sumOf(fake), host: hostTable{nft: host, sum: sumOf(host)}}, fake
}

var (
	macA = ether.Addr{2, 0, 0, 0, 0, 0xa}
	macB = ether.Addr{2, 0, 0, 0, 0, 0xb}
)

func addrs(texts ...string) (out []netip.Addr) {
	for _, s := range texts {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// example has a pod of each kind: IPv4 only, dual stack, and one with further addresses.
func example() Ruleset {
	return Ruleset{
		Uplinks: []string{"weft0", "weftvx6785"}, Others: []string{"veth1"}, PodPrefix: "vweft", Strict: true,
		Unbound: true, Broadcasts: 500,
		BridgeMAC: ether.Addr{6, 0x57, 1, 2, 3, 4}, BridgeAddrs: addrs("10.32.0.1", "fd32::1", "fe80::457:1ff:fe02:304"),
		Bound: []Port{
			{Link: "vwefta", MAC: macA, Addrs: addrs("10.32.0.2")},
			{Link: "vweftb", MAC: macB, Addrs: addrs("10.32.0.3", "fd32::3"),
				Allow: prefixes("10.32.0.100/32", "10.50.0.7/24", "fd32::100/128", "fd50::/52")},
		},
	}
}

// separated is example with ports in subnets: one in both families, two in the same, and one in nested ones.
func separated() Ruleset {
	r := example()
	r.Bridge = "weave"
	r.Bound[1].Subnets = prefixes("10.32.0.0/24", "fd32::/64")
	r.Separated = []Port{
		r.Bound[1],
		{Link: "vweftc", MAC: macA, Subnets: prefixes("10.32.1.0/24")},
		{Link: "vweftd", MAC: macB, Subnets: prefixes("10.32.1.0/24")},
		{Link: "vwefte", MAC: macB, Subnets: prefixes("10.32.1.0/24", "10.32.1.16/28")},
	}
	return r
}

func TestRuleset(t *testing.T) {
	fw, fake := newFake()
	if err := fw.Apply(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/ruleset.nft"
	if *update {
		if err := os.WriteFile(golden, []byte(fake.Dump()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), fake.Dump()); diff != "" {
		t.Errorf("the ruleset has changed; review it and run the test with -update (-want +got):\n%s", diff)
	}
	for range 2 {
		if err := fw.Remove(t.Context()); err != nil || fake.Dump() != "" {
			t.Errorf("Remove: %v, left:\n%s", err, fake.Dump())
		}
	}
}

// TestSeparated: ports of the same subnets share their chains, and the host forwards nothing into a subnet but answers and what was sent
// there on purpose.
func TestSeparated(t *testing.T) {
	fw, fake := newFake()
	if err := fw.Apply(t.Context(), separated()); err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{
		`add element bridge weft-guard subnet-from { "vweftc" : jump subnet-from-10.32.1.0-24 }`,
		`add element bridge weft-guard subnet-from { "vweftd" : jump subnet-from-10.32.1.0-24 }`,
		`add element bridge weft-guard subnet-to { "vwefte" : jump subnet-to-10.32.1.0-24 }`,
		`add element bridge weft-guard subnet-to { "vweftb" : jump subnet-to-10.32.0.0-24-fd32__-64 }`,
		`add rule bridge weft-guard subnet-from-10.32.1.0-24 goto drop-subnet`,
		`add rule bridge weft-guard prerouting iifname vmap @subnet-from`,
		`add rule bridge weft-guard postrouting oifname vmap @subnet-to`,
		`add rule bridge weft-guard own-routed ether type ip ip saddr 10.32.1.0/24 ip saddr != @own4 ip daddr != 10.32.1.0/24 goto drop-subnet`,
	} {
		if !strings.Contains(fake.Dump(), line) {
			t.Errorf("no %s in\n%s", line, fake.Dump())
		}
	}
	host := fw.host.nft.(*knftables.Fake)
	var forward []string
	for line := range strings.Lines(host.Dump()) {
		if rule, ok := strings.CutPrefix(strings.TrimSpace(line), "add rule inet weft-guard forward "); ok {
			forward = append(forward, rule)
		}
	}
	if diff := cmp.Diff([]string{
		`oifname != "weave" accept`, `ct state { established, related } accept`, `ct status dnat accept`,
		`ip daddr 10.32.0.0/24 ip saddr != 10.32.0.0/24 goto drop-subnet`,
		`ip daddr 10.32.1.0/24 ip saddr != 10.32.1.0/24 goto drop-subnet`,
		`ip daddr 10.32.1.16/28 ip saddr != 10.32.1.16/28 goto drop-subnet`,
		`ip6 daddr fd32::/64 ip6 saddr != fd32::/64 goto drop-subnet`,
	}, forward); diff != "" {
		t.Errorf("forwarded (-want +got):\n%s", diff)
	}
}

// TestHostTable: packets that come directly from a port are dropped, and a change of that table is noticed.
func TestHostTable(t *testing.T) {
	fw, _ := newFake()
	if err := fw.Apply(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	host := fw.host.nft.(*knftables.Fake)
	for _, port := range []string{"weft0", "weftvx6785", "veth1", "vweft*"} {
		if rule := `add rule inet weft-guard input iifname "` + port + `" goto drop-group`; !strings.Contains(host.Dump(), rule) {
			t.Errorf("no %s in\n%s", rule, host.Dump())
		}
	}
	before := host.Dump()
	tx := host.NewTransaction()
	tx.Flush(&knftables.Chain{Name: "input"})
	if err := host.Run(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	if intact, err := fw.Intact(); intact || err != nil {
		t.Errorf("after a flush: intact %t, %v", intact, err)
	}
	if err := fw.Apply(t.Context(), example()); err != nil || host.Dump() != before {
		t.Errorf("Apply: %v, %s", err, host.Dump())
	}
	if err := fw.Remove(t.Context()); err != nil || host.Dump() != "" {
		t.Errorf("Remove: %v, left:\n%s", err, host.Dump())
	}
}

// TestChange: from any ruleset to any other, a change has the same result as a replacement.
func TestChange(t *testing.T) {
	opened, moved := example(), example()
	opened.Bound = opened.Bound[:1]
	moved.BridgeAddrs = addrs("10.32.0.9", "fd32::9")
	moved.Bound[1].Allow = prefixes("10.60.0.0/16")
	moved.Bound[0].MAC, moved.Bound[1].MAC = macB, macA
	none := example()
	none.Bound, none.BridgeAddrs = nil, nil
	all := map[string]Ruleset{"example": example(), "separated": separated(), "one is open": opened, "moved": moved, "none": none}
	for from, a := range all {
		for to, b := range all {
			changed, changedFake := newFake()
			replaced, replacedFake := newFake()
			for _, err := range []error{
				changed.Apply(t.Context(), a), changed.Apply(t.Context(), b), replaced.Apply(t.Context(), b),
			} {
				if err != nil {
					t.Fatalf("from %s to %s: %v", from, to, err)
				}
			}
			if diff := cmp.Diff(replacedFake.Dump(), changedFake.Dump()); diff != "" {
				t.Errorf("from %s to %s (-want +got):\n%s", from, to, diff)
			}
		}
	}
}

func TestIntact(t *testing.T) {
	fw, fake := newFake()
	expect := func(want bool) {
		t.Helper()
		if got, err := fw.Intact(); got != want || err != nil {
			t.Errorf("Intact = %t, %v; want %t", got, err, want)
		}
	}
	expect(false)
	if err := fw.Apply(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	expect(true)
	tx := fake.NewTransaction()
	tx.Flush(&knftables.Set{Name: setBound})
	if err := fake.Run(t.Context(), tx); err != nil {
		t.Fatal(err)
	}
	expect(false)
	if err := fw.Apply(t.Context(), example()); err != nil {
		t.Fatal(err)
	}
	expect(true)
}

func TestValidate(t *testing.T) {
	port := func(change func(*Port)) Ruleset {
		p := Port{Link: "vwefta", MAC: macA, Addrs: addrs("10.32.0.2")}
		change(&p)
		return Ruleset{PodPrefix: "vweft", Bound: []Port{p}}
	}
	for name, r := range map[string]Ruleset{
		"no prefix":        {},
		"quote in uplink":  {PodPrefix: "vweft", Uplinks: []string{`we"ft`}},
		"wildcard":         {PodPrefix: "vweft", Others: []string{"we*"}},
		"no link":          port(func(p *Port) { p.Link = "" }),
		"no MAC":           port(func(p *Port) { p.MAC = ether.Addr{} }),
		"group MAC":        port(func(p *Port) { p.MAC = ether.Addr{1} }),
		"no address":       port(func(p *Port) { p.Addrs = []netip.Addr{{}} }),
		"unspecified":      port(func(p *Port) { p.Addrs = addrs("0.0.0.0") }),
		"multicast":        port(func(p *Port) { p.Addrs = addrs("ff02::1") }),
		"zone":             port(func(p *Port) { p.Addrs = addrs("fe80::1%eth0") }),
		"IPv4 in IPv6":     port(func(p *Port) { p.Addrs = addrs("::ffff:10.0.0.1") }),
		"invalid prefix":   port(func(p *Port) { p.Allow = []netip.Prefix{{}} }),
		"subnet of a host": port(func(p *Port) { p.Subnets = prefixes("10.32.0.1/24") }),
		"no bridge":        {PodPrefix: "vweft", Separated: []Port{{Link: "vwefta", MAC: macA, Subnets: prefixes("10.32.0.0/24")}}},
		"multicast prefix": port(func(p *Port) { p.Allow = prefixes("224.0.0.1/32") }),
	} {
		fw, fake := newFake()
		if err := fw.Apply(t.Context(), r); err == nil || !strings.HasPrefix(err.Error(), "guard: ") || fake.Dump() != "" {
			t.Errorf("%s: Apply = %v, rules %q", name, err, fake.Dump())
		}
	}
}
