package kubernetes

import (
	"encoding/xml"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// suite is a selection of the upstream tests.
type suite struct {
	name, focus, skip string
	why               string // the skipped tests, and the reason
}

var suites = []suite{
	{"sig-network conformance", `\[sig-network\].*\[Conformance\]`, `\[Disruptive\]`, "nothing"},
	{
		"NetworkPolicy (Netpol)", `Netpol|NetworkPolicy`, `SCTPConnectivity`,
		"`[Feature:SCTPConnectivity]`: the kernel of the machine has no SCTP sockets",
	},
}

// report is the content of docs/CONFORMANCE.md.
type report struct {
	steps  [][2]string
	suites []result
}

// result is the result of a suite.
type result struct {
	suite
	passed, failed []string
	took           time.Duration
}

func (r *report) add(step, outcome string) { r.steps = append(r.steps, [2]string{step, outcome}) }

// junit has the used fields of the upstream report.
type junit struct {
	Suites []struct {
		Cases []struct {
			Name    string    `xml:"name,attr"`
			Status  string    `xml:"status,attr"`
			Skipped *struct{} `xml:"skipped"`
			Failure *struct{} `xml:"failure"`
			Error   *struct{} `xml:"error"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// suite runs a suite of the upstream tests. Each failed test is an error of this test.
func (r *report) suite(t *testing.T, l *lab, s suite) {
	start := time.Now()
	_, runErr := l.run(t.Context(), "e2e", s.focus, s.skip)
	text, err := os.ReadFile(filepath.Join(l.home, "cl", "report", "junit_01.xml"))
	if err != nil {
		t.Fatalf("no report: %v, %v", err, runErr)
	}
	var doc junit
	if err := xml.Unmarshal(text, &doc); err != nil {
		t.Fatal(err)
	}
	out := result{suite: s, took: time.Since(start)}
	for _, group := range doc.Suites {
		for _, c := range group.Cases {
			name := strings.TrimPrefix(c.Name, "[It] ")
			switch {
			case !strings.HasPrefix(c.Name, "[It]") || c.Skipped != nil:
			case c.Failure != nil || c.Error != nil:
				out.failed = append(out.failed, name)
				t.Errorf("failed: %s", name)
			default:
				out.passed = append(out.passed, name)
			}
		}
	}
	slices.Sort(out.failed)
	r.suites = append(r.suites, out)
}

// write writes docs/CONFORMANCE.md.
func (r *report) write(t *testing.T, l *lab) {
	t.Helper()
	var text strings.Builder
	p := func(format string, args ...any) { _, _ = fmt.Fprintf(&text, format+"\n", args...) }
	p("# Conformance\n\nThis page is the output of `make e2e`.\n"+
		"The cluster has two nodes, installed from `deploy/kubernetes.yaml` with a secret.\n"+
		"All traffic between nodes is encrypted.\n"+
		"kube-proxy runs in mode %s.\nThe upstream tests are those of the Kubernetes version below.\n", mode())
	p("| | |\n|---|---|")
	p("| date | %s |", time.Now().UTC().Format(time.DateOnly))
	p("| weft | %s |", strings.TrimPrefix(l.weft(t, 1, "version"), "weft "))
	p("| Kubernetes | %s |", l.kubectl(t, "get", "node", "node1", "-o", "jsonpath={.status.nodeInfo.kubeletVersion}"))
	p("| runtime | %s |", l.kubectl(t, "get", "node", "node1", "-o", "jsonpath={.status.nodeInfo.containerRuntimeVersion}"))
	p("| kernel | %s, %s |", l.kubectl(t, "get", "node", "node1", "-o", "jsonpath={.status.nodeInfo.kernelVersion}"), runtime.GOARCH)
	p("\n## Suites\n\n| suite | passed | failed | duration | not run |\n|---|---|---|---|---|")
	for _, s := range r.suites {
		p("| %s | %d | %d | %d min | %s |", s.name, len(s.passed), len(s.failed), int(s.took.Minutes()), s.why)
	}
	for _, s := range r.suites {
		if len(s.failed) > 0 {
			p("\nFailed tests of %s:\n", s.name)
			for _, name := range s.failed {
				p("- %s", name)
			}
		}
	}
	p("\n## What happens to nodes\n\n| operation | result |\n|---|---|")
	for _, s := range r.steps {
		p("| %s | %s |", s[0], s[1])
	}
	fmt.Println(text.String())
	page := filepath.Join(l.root, "docs", "CONFORMANCE.md")
	if err := os.WriteFile(page, []byte(text.String()), 0o644); err != nil { //nolint:gosec // documentation
		t.Fatal(err)
	}
}

// mode returns the mode of kube-proxy.
func mode() string {
	if m := os.Getenv("PROXYMODE"); m != "" {
		return m
	}
	return "iptables"
}
