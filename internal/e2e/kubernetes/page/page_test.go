package page_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/e2e/kubernetes/outcome"
	"weft/internal/e2e/kubernetes/page"
)

var update = flag.Bool("update", false, "write testdata/page.md")

// fill writes the record of a setting that broke off, as a run does.
func fill(t *testing.T, dir string) {
	t.Helper()
	facts := page.Facts{
		Date: "2026-12-01", Weft: "v1", Kubernetes: "v1.36.3", Runtime: "containerd://2.4.2", Kernel: "6.18, amd64",
		Suites: []page.Suite{
			{Name: "Conformance", Tests: []string{"[sig-network] DNS should work [Conformance]", "[sig-network] Services should | work"}},
			{Name: "Netpol", LeftOut: "tests with SCTP", Tests: []string{"[sig-network] Netpol should deny", "[sig-network] Netpol should allow"}},
		},
		Broken: "the machine\nhas stopped",
	}
	if err := facts.Save(dir); err != nil {
		t.Fatal(err)
	}
	for _, r := range []outcome.Result{
		{Name: "[sig-network] DNS should work [Conformance]", State: outcome.Passed, Seconds: 12.3},
		{Name: "[sig-network] Services should | work", State: outcome.Skipped, Seconds: 0.1, Message: "only for <cloud> providers"},
		{Name: "[sig-network] Netpol should deny", State: outcome.Failed, Seconds: 61, Message: "no reply\n  from x/a:\n\tTIMEOUT"},
		{Name: "[sig-network] Netpol should deny", State: outcome.Passed, Seconds: 30},
	} {
		if err := outcome.Append(filepath.Join(dir, page.TestsFile), r); err != nil {
			t.Fatal(err)
		}
	}
	for _, r := range []outcome.Result{
		{Name: "install", State: outcome.Passed, Seconds: 8, Message: "nodes Ready after 6 s"},
		{Name: "reboot", State: outcome.Failed, Seconds: 120, Message: "pod p2 does not answer"},
	} {
		if err := outcome.Append(filepath.Join(dir, page.StepsFile), r); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPage compares the page of one setting that broke off and one that has not run with a file.
func TestPage(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	first, err := page.Load(dir, "iptables", "IPv4, kube-proxy in mode iptables")
	if err != nil {
		t.Fatal(err)
	}
	second, err := page.Load(filepath.Join(dir, "none"), "ipv6", "IPv6 only")
	if err != nil {
		t.Fatal(err)
	}
	got := page.Render([]page.Setting{first, second})
	golden := filepath.Join("testdata", "page.md")
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("the page differs from %s (write it with -update):\n%s", golden, got)
	}
}

// TestNothingIsHidden: what failed or did not run is on the page.
func TestNothingIsHidden(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	s, err := page.Load(dir, "iptables", "")
	if err != nil {
		t.Fatal(err)
	}
	got := page.Render([]page.Setting{s, {Name: "ipv6"}})
	for _, want := range []string{
		"no reply from x/a: TIMEOUT", "passed at try 2", "pod p2 does not answer", "**1 tests not run** yet", "the machine has stopped",
		"**not run** yet", "only for &lt;cloud> providers", "tests with SCTP",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("the page has no %q", want)
		}
	}
}

func TestLoadBroken(t *testing.T) {
	dir := t.TempDir()
	fill(t, dir)
	for _, name := range []string{page.TestsFile, page.StepsFile, "facts.json"} {
		path := filepath.Join(dir, name)
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("x\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := page.Load(dir, "iptables", ""); err == nil {
			t.Errorf("no error for a broken %s", name)
		}
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
