package hostfilter

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var (
	pods4  = netip.MustParsePrefix("10.32.0.0/12")
	pods6  = netip.MustParsePrefix("fd32::/64")
	self   = netip.MustParseAddr("192.0.2.7")
	uplink = "eth0"
)

// packets are the ways of packets that the tests judge.
var packets = map[string]Packet{
	"pods":    BetweenPods("weave", pods4, true),
	"pods6":   BetweenPods("weave", pods6, true),
	"out":     FromPods("weave", pods4, uplink),
	"answers": ToPods("weave", pods4, uplink),
	"gossip":  ToHost(self, uplink, "tcp", 6783),
	"data":    ToHost(self, uplink, "udp", 6784),
	"ssh":     ToHost(self, uplink, "tcp", 22),
}

// captured are rulesets of firewalls as they were loaded, and the fate of packets under them. Packets that are not named pass.
var captured = map[string]map[string]struct {
	verdict Verdict
	says    string
}{
	"docker": {
		"pods": {Drops, "FORWARD"}, "out": {Drops, "drops by default"}, "answers": {Drops, "drops by default"},
	},
	"rhel": {
		"pods": {Drops, "reject"}, "out": {Drops, "reject"}, "answers": {Drops, "chain FORWARD"},
		"gossip": {Drops, "chain INPUT"}, "data": {Drops, "chain INPUT"},
	},
	"oracle": {
		"pods": {Drops, "reject"}, "out": {Drops, "reject"}, "answers": {Drops, "chain FORWARD"},
		"gossip": {Drops, "chain INPUT"}, "data": {Drops, "chain INPUT"},
	},
	"ufw":  {"pods": {Drops, "drops by default"}, "out": {Drops, "chain FORWARD"}},
	"kube": {},
	"open": {"gossip": {Unclear, ""}, "data": {Unclear, ""}, "ssh": {Drops, "INPUT"}},
	"firewalld": {
		"pods": {Drops, "admin-prohibited"}, "pods6": {Drops, "filter_FWD_public"}, "gossip": {Drops, "filter_IN_public"},
		"data": {Drops, "filter_IN_public"},
	},
	"firewalld-trusted": {"gossip": {Drops, "filter_IN_public"}, "data": {Drops, "filter_IN_public"}},
	"native":            {"ssh": {Drops, "chain input of table inet filter drops by default"}, "gossip": {Unclear, ""}, "data": {Unclear, ""}},
	"bridge":            {"pods": {Unclear, "chain forward of table bridge strict"}, "pods6": {Unclear, ""}},
	"ports":             {},
}

// judgeCaptured compares the fate of all packets under a captured ruleset.
func judgeCaptured(t *testing.T, name string, rules Ruleset) {
	t.Helper()
	for way, p := range packets {
		want, listed := captured[name][way]
		if !listed {
			want.verdict = Passes
		}
		got := Judge(rules, p)
		if got.Verdict != want.verdict || !strings.Contains(strings.ToLower(got.String()), strings.ToLower(want.says)) {
			t.Errorf("%s, %s: verdict %d: %s; want %d with %q", name, way, got.Verdict, got, want.verdict, want.says)
		}
	}
}

func readTestdata(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestJudgeCapturedRulesets: the rules of firewalld, ufw, Docker, RHEL and Oracle's images as "nft list ruleset" prints them.
func TestJudgeCapturedRulesets(t *testing.T) {
	for name := range captured {
		judgeCaptured(t, name, ParseNFT(readTestdata(t, name+".nft")))
	}
}

// TestJudge: rules with conditions, jumps, returns and verdict maps.
func TestJudge(t *testing.T) {
	const header = "table inet t {\n chain x {\n %X\n }\n chain f {\n type filter hook forward priority 0; policy %P;\n %R\n }\n}\n"
	for _, tt := range []struct {
		what, policy, x, rules string
		want                   Verdict
	}{
		{"no rules", "accept", "", "", Passes},
		{"policy", "drop", "", "", Drops},
		{"final rule", "accept", "", "counter drop", Drops},
		{"earlier accept", "drop", "", "iifname \"weave\" oifname \"weave\" accept", Passes},
		{"accept of others", "drop", "", "iifname != \"weave\" accept", Drops},
		{"accept in a set", "drop", "", "oifname { \"eth0\", \"wea*\" } accept", Passes},
		{"accept of a source", "drop", "", "ip saddr 10.0.0.0/8 accept", Passes},
		{"accept of a part", "drop", "", "ip saddr 10.33.0.0/16 accept", Unclear},
		{"accept of another source", "drop", "", "ip saddr 192.0.2.0/24 accept", Drops},
		{"accept of a named set", "drop", "", "ip saddr @good accept", Unclear},
		{"accept by a mark", "drop", "", "meta mark 0x1 accept", Unclear},
		{"drop by a mark", "accept", "", "meta mark 0x1 drop", Passes},
		{"accept of UDP", "drop", "", "udp dport 53 accept", Drops},
		{"accept of a port", "drop", "", "tcp dport 80 accept", Unclear},
		{"drop in a jump", "accept", "drop", "jump x", Drops},
		{"drop in a jump of others", "accept", "drop", "iifname \"eth0\" jump x", Passes},
		{"accept in a jump", "drop", "accept", "jump x", Passes},
		{"accept in a jump that may match", "drop", "accept", "meta mark 1 jump x", Unclear},
		{"drop in a jump that may match", "accept", "drop", "meta mark 1 jump x", Passes},
		{"return before a drop", "accept", "return\n drop", "jump x", Passes},
		{"return of some before a drop", "accept", "meta mark 1 return\n drop", "jump x", Unclear},
		{"goto ends the chain", "accept", "", "goto x\n drop", Passes},
		{"jump returns", "accept", "", "jump x\n drop", Drops},
		{"no such chain", "accept", "", "jump y\n drop", Drops},
		{"a loop ends", "drop", "jump x", "jump x", Drops},
		{"verdict map", "accept", "", "iifname vmap { \"eth0\" : accept, \"weave\" : drop }", Drops},
		{"verdict map with a jump", "drop", "accept", "iifname vmap { \"weave\" : jump x }", Passes},
		{"verdict map by name", "accept", "", "ip daddr vmap @m\n drop", Unclear},
		{"a concatenation", "drop", "", "iifname . oifname { \"weave\" . \"weave\" } accept", Unclear},
		{"a map of concatenations", "drop", "accept", "iifname . oifname vmap { \"weave\" . \"weave\" : jump x }", Unclear},
		{"reverse path filter", "accept", "", "fib saddr . mark . iif oif missing drop", Passes},
		{"new", "drop", "", "ct state new accept", Passes},
		{"established", "drop", "", "ct state established,related accept", Drops},
		{"IPv6 alone", "drop", "", "meta nfproto ipv6 accept", Drops},
		{"a limit", "drop", "", "limit rate 3/minute burst 10 packets accept", Unclear},
		{"a comment", "accept", "", "counter packets 3 bytes 4 drop comment \"no accept\"", Drops},
		{"a log", "accept", "", "log prefix \"a drop, not an accept: \" level info", Passes},
	} {
		text := strings.NewReplacer("%X", tt.x, "%P", tt.policy, "%R", tt.rules).Replace(header)
		if got := Judge(ParseNFT(text), packets["pods"]); got.Verdict != tt.want {
			t.Errorf("%s: verdict %d (%s), want %d", tt.what, got.Verdict, got, tt.want)
		}
	}
}

// TestBridgedFramesPassIPFiltersOnlyIfTheKernelPassesThem: without br_netfilter the chains of IP do not see frames between pods.
func TestBridgedFramesPassIPFiltersOnlyIfTheKernelPassesThem(t *testing.T) {
	if got := Judge(ParseNFT(readTestdata(t, "rhel.nft")), BetweenPods("weave", pods4, false)); got.Verdict != Passes {
		t.Errorf("IP chains: %s", got)
	}
	if got := Judge(ParseNFT(readTestdata(t, "bridge.nft")), BetweenPods("weave", pods4, false)); got.Verdict == Passes {
		t.Error("chains of the bridge family are not judged")
	}
}

// TestChainsOfTheWay: a chain that drops everything is judged for the packets that pass its hook, in its family; the remedy names only
// interfaces that packets have there.
func TestChainsOfTheWay(t *testing.T) {
	host := Host{Bridge: "weave", Ranges: []netip.Prefix{pods4}, Filtered4: true, Outside: true, Exposed: true, Inward: true}
	for _, tt := range []struct {
		family, hook string
		want         []Traffic
		in, out      bool // of the remedy
	}{
		{"bridge", "prerouting", []Traffic{PodsToPods, HostToPods, PodsToOutside, ClientsToPods}, false, false},
		{"bridge", "input", []Traffic{HostToPods, PodsToOutside, ClientsToPods}, false, false},
		{"bridge", "forward", []Traffic{PodsToPods}, false, false},
		{"bridge", "output", []Traffic{HostToPods, PodsToOutside, ClientsToPods}, false, false},
		{"bridge", "postrouting", []Traffic{PodsToPods, HostToPods, PodsToOutside, ClientsToPods}, false, false},
		{"ip", "prerouting", []Traffic{PodsToPods, HostToPods, PodsToOutside, ClientsToPods}, true, false},
		{"ip", "input", []Traffic{HostToPods}, true, false},
		{"ip", "forward", []Traffic{PodsToPods, PodsToOutside, ClientsToPods}, true, true},
		{"ip", "output", []Traffic{HostToPods}, false, true},
		{"ip6", "output", nil, false, false},
	} {
		rules := ParseNFT(fmt.Sprintf("table %s other {\n chain c {\n type filter hook %s priority 0; policy drop;\n }\n}\n", tt.family, tt.hook))
		var got []Traffic
		for _, l := range Assess(rules, host) {
			got = append(got, l.Traffic)
			if in, out := strings.Contains(l.Remedy, "iifname"), strings.Contains(l.Remedy, "oifname"); in != tt.in || out != tt.out {
				t.Errorf("%s %s: remedy %q", tt.family, tt.hook, l.Remedy)
			}
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s %s: lost %v, want %v", tt.family, tt.hook, got, tt.want)
		}
	}
}

// TestOwnTablesAreLeftOut: policies drop packets because they should.
func TestOwnTablesAreLeftOut(t *testing.T) {
	rules := ParseNFT("table inet weft-policy {\n chain f {\n type filter hook forward priority 0; policy drop;\n }\n}\n")
	if got := Judge(rules, packets["pods"]); got.Verdict != Drops {
		t.Fatalf("with it: %s", got)
	}
	if got := Judge(rules.Without("weft"), packets["pods"]); got.Verdict != Passes {
		t.Errorf("without it: %s", got)
	}
}

// TestRemedies: the remedy uses the tool of the rules that drop.
func TestRemedies(t *testing.T) {
	for name, want := range map[string][2]string{
		"docker":    {"iptables-nft -I DOCKER-USER -i weave -j ACCEPT; iptables-nft -I DOCKER-USER -o weave -j ACCEPT", ""},
		"rhel":      {"iptables-nft -I FORWARD -i weave -j ACCEPT", "iptables-nft -I INPUT -p udp -s NODES --dport 6784 -j ACCEPT"},
		"ufw":       {"ufw route allow in on weave", ""},
		"firewalld": {"firewall-cmd --permanent --zone=trusted --add-interface=weave", "firewall-cmd --permanent --add-port=6784/udp"},
	} {
		rules := ParseNFT(readTestdata(t, name+".nft"))
		if got := Judge(rules, packets["pods"]).AcceptPods(rules, "weave"); !strings.Contains(got, want[0]) {
			t.Errorf("%s: %q, want %q", name, got, want[0])
		}
		if got := Judge(rules, packets["data"]).AcceptPort(rules, "udp", 6784); !strings.Contains(got, want[1]) {
			t.Errorf("%s: %q, want %q", name, got, want[1])
		}
	}
	rules := ParseNFT("table inet mine {\n chain f {\n type filter hook forward priority 0; policy accept;\n jump g\n }\n" +
		" chain g {\n drop\n }\n}\n")
	const want = "nft insert rule inet mine f iifname weave accept"
	if got := Judge(rules, packets["pods"]).AcceptPods(rules, "weave"); !strings.Contains(got, want) {
		t.Errorf("in the base chain: %q", got)
	}
}

// TestTranslated: a published port is found through jumps, and not after its rules are gone.
func TestTranslated(t *testing.T) {
	text := readTestdata(t, "ports.nft")
	at := func(port uint16) Packet { return ToHost(self, "", "tcp", port) }
	if rules := ParseNFT(text); !Translated(rules, at(20000)) || Translated(rules, at(20001)) {
		t.Error("20000 is published, and 20001 is not")
	}
	flushed := strings.ReplaceAll(text, "tcp dport 20000 counter dnat to 10.32.0.2:80", "")
	if Translated(ParseNFT(flushed), at(20000)) {
		t.Error("the rule is gone")
	}
	unlinked := strings.ReplaceAll(text, "fib daddr type local counter jump CNI-HOSTPORT-DNAT", "")
	if Translated(ParseNFT(unlinked), at(20000)) {
		t.Error("nothing leads to the rule")
	}
}
