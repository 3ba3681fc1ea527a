package kubernetes

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"weft/internal/e2e/kubernetes/outcome"
	"weft/internal/e2e/kubernetes/page"
)

// suite is a selection of the upstream tests, by expressions for their names.
type suite struct {
	name, focus, skip string
	leftOut           string // which tests of the focus are left out, and why
}

// noSCTP is why tests are left out that open SCTP connections.
const noSCTP = "tests with `[Feature:SCTPConnectivity]`, because kernels often have no SCTP sockets"

var (
	conformance = suite{name: "sig-network conformance", focus: `\[sig-network\].*\[Conformance\]`}
	netpol      = suite{name: "NetworkPolicy (Netpol)", focus: `Netpol`, skip: `SCTPConnectivity`, leftOut: noSCTP}
	dualStack   = suite{name: "Dual stack", focus: `\[Feature:IPv6DualStack\]`, skip: `SCTPConnectivity`, leftOut: noSCTP}

	smokeConformance = suite{
		name: "sig-network conformance, a part", focus: `\[sig-network\].*(DNS should provide DNS for services|` +
			`HostPort validates|should be able to create a functioning NodePort|` +
			`Pods should function for (intra-pod|node-pod) communication: http|should serve multiport endpoints|` +
			`session affinity work for service with type clusterIP).*\[Conformance\]`,
	}
	smokeNetpol = suite{
		name: "NetworkPolicy (Netpol), a part", focus: `Netpol NetworkPolicy between server and client should (` +
			`support a 'default-deny-all'|enforce policy based on Ports|allow ingress access on one named port|enforce updated policy|` +
			`enforce except clause|allow ingress access from updated namespace|deny egress from pods based on PodSelector|` +
			`stop enforcing policies after they are deleted)`,
	}
)

// names returns the names of the tests of a suite.
func (s suite) names(t *testing.T, l *lab) (names []string) {
	t.Helper()
	// The list needs no cluster.
	cmd := l.command(t.Context())
	cmd.Path = filepath.Join(l.home, "bin", "net-e2e.test")
	cmd.Args = []string{cmd.Path, "-list", s.focus, "-skip-names", s.skip}
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "test: "); ok {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		t.Fatalf("no test matches %s", s.focus)
	}
	slices.Sort(names)
	return names
}

// parallel returns how many upstream tests run at the same time.
func parallel(t *testing.T) int {
	t.Helper()
	text := os.Getenv("WEFT_E2E_PARALLEL")
	if text == "" {
		return 4
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("WEFT_E2E_PARALLEL is %q", text)
	}
	return n
}

// upstream runs those of the tests that have no result yet, then those again that failed. A test that failed is an error also if it passes
// then.
func (l *lab) upstream(t *testing.T, folder string, names []string) {
	record := filepath.Join(folder, page.TestsFile)
	read := func() []outcome.Test {
		t.Helper()
		tests, err := outcome.Read(record)
		if err != nil {
			t.Fatal(err)
		}
		return tests
	}
	start := time.Now()
	// A process that ends in the middle leaves tests without a result: they run once more.
	for range 2 {
		beside, alone := outcome.Split(outcome.Waiting(names, read()))
		l.runTests(t, folder, beside, parallel(t))
		l.runTests(t, folder, alone, 1)
	}
	t.Logf("%d tests in %v", len(names), time.Since(start).Round(time.Second))
	l.runTests(t, folder, outcome.FailedOnce(names, read()), 1)
	done := read()
	for _, name := range outcome.Waiting(names, done) {
		t.Errorf("no result: %s", name)
	}
	for _, test := range done {
		if slices.Contains(names, test.Name) && test.First().State == outcome.Failed {
			t.Errorf("failed, then %s: %s: %s", test.Last().State, test.Name, test.First().Message)
		}
	}
}

// runTests runs tests, several at the same time, each in a process of its own: that takes half a second longer, and no test waits behind
// one that hangs. Results are in the record; what the tests print is in files.
func (l *lab) runTests(t *testing.T, folder string, names []string, atOnce int) {
	t.Helper()
	logs := filepath.Join(folder, "logs")
	if err := os.MkdirAll(logs, 0o755); err != nil {
		t.Fatal(err)
	}
	queue := make(chan string, len(names))
	for _, name := range names {
		queue <- name
	}
	close(queue)
	var workers sync.WaitGroup
	for i := range atOnce {
		workers.Go(func() {
			for name := range queue {
				if t.Context().Err() != nil {
					return
				}
				log := filepath.Join(logs, fmt.Sprintf("%s-%d", time.Now().Format("20060102T150405.000"), i))
				l.runTest(t, filepath.Join(folder, page.TestsFile), log, name)
			}
		})
	}
	workers.Wait()
}

// runTest runs one test. It writes its name and its output to files. A test that fails is no error of it: the record has it.
func (l *lab) runTest(t *testing.T, record, log, name string) {
	if err := os.WriteFile(log+".name", []byte(name+"\n"), 0o644); err != nil {
		t.Error(err)
		return
	}
	output, err := os.Create(log + ".log")
	if err != nil {
		t.Error(err)
		return
	}
	defer func() { _ = output.Close() }()
	cmd := l.command(t.Context(), "e2e", "--ginkgo.v", "-names", log+".name", "-results", record)
	cmd.Stdout, cmd.Stderr = output, output
	if err := cmd.Run(); err != nil {
		t.Logf("%v, see %s.log", err, log)
	}
}
