package hostfilter

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// restore loads a captured ruleset with a tool of iptables.
func restore(t *testing.T, s *nettest.Space, tool, name string) {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("testdata", name+".save"))
	if err != nil {
		t.Fatal(err)
	}
	labtest.Run(t, s, "sh", "-c", tool+"-restore < "+path)
}

// read reads the filters of a namespace.
func read(t *testing.T, s *nettest.Space) (rules Ruleset) {
	t.Helper()
	if err := s.Do(func() (err error) { rules, err = Read(t.Context()); return err }); err != nil {
		t.Fatal(err)
	}
	return rules
}

// TestBackendsAgree: the same rules lead to the same verdicts, whether iptables-legacy or iptables-nft has loaded them.
func TestBackendsAgree(t *testing.T) {
	labtest.RequireRoot(t)
	labtest.Needs(t, "iptables-legacy-restore")
	saved, err := filepath.Glob("testdata/*.save")
	if err != nil || len(saved) == 0 {
		t.Fatal(saved, err)
	}
	l := labtest.New(t, nettest.Config{})
	for _, path := range saved {
		name := strings.TrimSuffix(filepath.Base(path), ".save")
		for _, tool := range []string{"iptables-legacy", "iptables-nft"} {
			s := labtest.AddHost(t, l, name+"-"+tool[9:]).Space
			restore(t, s, tool, name)
			rules := read(t, s)
			judgeCaptured(t, name, rules)
			if r := Judge(rules, packets["pods"]); r.Verdict == Drops && r.Chain.Tool() != tool {
				t.Errorf("%s: the tool of %s is %s, want %s", name, r.Chain, r.Chain.Tool(), tool)
			}
			port := ToHost(self, "", "tcp", 20000)
			if Translated(rules, port) != (name == "ports") {
				t.Errorf("%s with %s: published %v", name, tool, Translated(rules, port))
			}
		}
	}
}

// TestIPv6Legacy: a table of ip6tables-legacy is read, with a goto.
func TestIPv6Legacy(t *testing.T) {
	labtest.RequireRoot(t)
	labtest.Needs(t, "ip6tables-legacy")
	l := labtest.New(t, nettest.Config{})
	s := labtest.AddHost(t, l, "a").Space
	for _, args := range []string{
		"-N last", "-A last -s fd32::/64 -j REJECT", "-A FORWARD -i eth+ -j ACCEPT", "-A FORWARD -p tcp -g last", "-A FORWARD -j ACCEPT",
	} {
		labtest.Run(t, s, append([]string{"ip6tables-legacy"}, strings.Fields(args)...)...)
	}
	rules := read(t, s)
	r := Judge(rules, packets["pods6"])
	if r.Verdict != Drops || r.Rule == nil || r.Rule.Text != "-A last -s fd32::/64 -j REJECT" || r.Chain.Tool() != "ip6tables-legacy" {
		t.Errorf("%s", r)
	}
	if got := r.AcceptPods(rules, "weave"); !strings.Contains(got, "ip6tables-legacy -I FORWARD -i weave -j ACCEPT") {
		t.Errorf("remedy %q", got)
	}
	if r := Judge(rules, packets["pods"]); r.Verdict != Passes {
		t.Errorf("IPv4: %s", r)
	}
}

// TestReadMakesNoTable: reading does not make a table of iptables-legacy on a host without one.
func TestReadMakesNoTable(t *testing.T) {
	l := labtest.New(t, nettest.Config{})
	s := labtest.AddHost(t, l, "a").Space
	if rules := read(t, s); len(rules.Chains) != 0 {
		t.Errorf("%d chains", len(rules.Chains))
	}
	if out := labtest.Run(t, s, "cat", "/proc/net/ip_tables_names"); len(bytes.TrimSpace([]byte(out))) != 0 {
		t.Errorf("tables: %s", out)
	}
}

// FuzzLegacy: entries of a table never panic the parser.
func FuzzLegacy(f *testing.F) {
	f.Add(make([]byte, 200), true)
	f.Fuzz(func(_ *testing.T, entries []byte, v4 bool) {
		t := legacyTable{family: IPv6, name: "filter", validHooks: 1 << 2, entries: entries}
		if v4 {
			t.family = IPv4
		}
		if chains, err := t.chains(); err == nil {
			Judge(Ruleset{chains}, packets["pods"])
		}
	})
}

// FuzzParseNFT: no text panics the parser.
func FuzzParseNFT(f *testing.F) {
	f.Add("table inet t {\nchain c {\ntype filter hook forward priority 0; policy drop;\niifname vmap { \"a\" : jump x }\n}\n}\n")
	f.Fuzz(func(_ *testing.T, text string) { Judge(ParseNFT(text), packets["pods"]) })
}
