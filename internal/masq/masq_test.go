package masq

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"sigs.k8s.io/knftables"
)

func prefixes(texts ...string) (out []netip.Prefix) {
	for _, s := range texts {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// newFake returns a Firewall with tables in memory.
func newFake(halves ...half) (*NFT, *knftables.Fake) {
	family := knftables.InetFamily
	if len(halves) == 1 {
		family = halves[0].family
	}
	fake := knftables.NewFake(family, Table)
	return &NFT{parts: []part{{fake, halves}}}, fake
}

const goldenBoth = `add table inet weft { comment "weft: masquerade for what leaves the overlay" ; }
add chain inet weft postrouting { type nat hook postrouting priority 100 ; }
add set inet weft overlay4 { type ipv4_addr ; flags interval ; }
add set inet weft overlay6 { type ipv6_addr ; flags interval ; }
add rule inet weft postrouting oifname "weave" return
add rule inet weft postrouting ip saddr @overlay4 ip daddr != @overlay4 ip daddr != 224.0.0.0/4 masquerade fully-random
add rule inet weft postrouting ip6 saddr @overlay6 ip6 daddr != @overlay6 ip6 daddr != ff00::/8 masquerade fully-random
add element inet weft overlay4 { 10.32.0.0/12 }
add element inet weft overlay4 { 172.30.0.0/16 }
add element inet weft overlay6 { fd32::/64 }
`

const golden6 = `add table ip6 weft { comment "weft: masquerade for what leaves the overlay" ; }
add chain ip6 weft postrouting { type nat hook postrouting priority 100 ; }
add set ip6 weft overlay6 { type ipv6_addr ; flags interval ; }
add rule ip6 weft postrouting ip6 saddr @overlay6 ip6 daddr != @overlay6 ip6 daddr != ff00::/8 masquerade fully-random
add element ip6 weft overlay6 { fd32::/64 }
`

func TestRuleset(t *testing.T) {
	ranges := prefixes("10.32.0.1/12", "172.30.0.0/16", "fd32::/64")
	for name, c := range map[string]struct {
		halves []half
		rules  Ruleset
		want   string
	}{
		"one table":             {[]half{half4, half6}, Ruleset{Ranges: ranges, Bridge: "weave"}, goldenBoth},
		"IPv6 alone, no bridge": {[]half{half6}, Ruleset{Ranges: ranges}, golden6},
	} {
		fw, fake := newFake(c.halves...)
		for range 2 { // the second time replaces the first
			if err := fw.Apply(t.Context(), c.rules); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if diff := cmp.Diff(c.want, fake.Dump()); diff != "" {
				t.Errorf("%s (-want +got):\n%s", name, diff)
			}
		}
		for range 2 {
			if err := fw.Remove(t.Context()); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if left := fake.Dump(); left != "" {
				t.Errorf("%s: Remove leaves\n%s", name, left)
			}
		}
	}
}

func TestValidate(t *testing.T) {
	for _, r := range []Ruleset{
		{Ranges: []netip.Prefix{{}}},
		{Ranges: prefixes("10.32.0.0/12", "10.33.0.0/16")},
		{Ranges: prefixes("::ffff:10.0.0.0/104")},
		{Bridge: `we"ave`},
		{Bridge: "we ave"},
		{Bridge: "we*"},
	} {
		fw, fake := newFake(half4, half6)
		err := fw.Apply(t.Context(), r)
		if err == nil || !strings.HasPrefix(err.Error(), "masq: bad") && !strings.Contains(err.Error(), "overlaps") {
			t.Errorf("Apply(%+v) = %v", r, err)
		}
		if fake.Dump() != "" {
			t.Errorf("Apply(%+v) changed the rules", r)
		}
	}
}

func TestEnableForwarding(t *testing.T) {
	root := t.TempDir()
	files := map[string]string{
		"ipv4/ip_forward":          "0\n",
		"ipv6/conf/all/forwarding": "0\n",
		"ipv6/conf/eth0/accept_ra": "1\n",
		"ipv6/conf/eth1/accept_ra": "0\n",
		"ipv6/conf/eth2/accept_ra": "2\n",

		"ipv6/conf/all/accept_ra": "1\n", "ipv6/conf/default/accept_ra": "1\n", "ipv6/conf/weave/accept_ra": "1\n",
	}
	for name, text := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	expect := func(want map[string]string) {
		t.Helper()
		got := map[string]string{}
		for name := range files {
			text, err := os.ReadFile(filepath.Join(root, name))
			if err != nil {
				t.Fatal(err)
			}
			got[name] = strings.TrimSpace(string(text)[:1])
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("settings (-want +got):\n%s", diff)
		}
	}
	want := map[string]string{
		"ipv4/ip_forward": "1", "ipv6/conf/all/forwarding": "0",
		"ipv6/conf/eth0/accept_ra": "1", "ipv6/conf/eth1/accept_ra": "0", "ipv6/conf/eth2/accept_ra": "2",
		"ipv6/conf/all/accept_ra": "1", "ipv6/conf/default/accept_ra": "1", "ipv6/conf/weave/accept_ra": "1",
	}
	reliant := func() ([]string, error) { return []string{"eth0", "eth1", "eth2", "gone"}, nil }
	if err := enableForwarding(root, true, false, reliant); err != nil {
		t.Fatal(err)
	}
	expect(want)
	want["ipv6/conf/all/forwarding"], want["ipv6/conf/eth0/accept_ra"] = "1", "2"
	for range 2 {
		if err := enableForwarding(root, true, true, reliant); err != nil {
			t.Fatal(err)
		}
		expect(want)
	}
	if err := enableForwarding(t.TempDir(), true, false, reliant); err == nil {
		t.Error("no error without the settings")
	}
}
