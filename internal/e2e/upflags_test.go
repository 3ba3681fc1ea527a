package e2e

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// flagOf returns a flag of a running daemon, as its report shows it.
func flagOf(t *testing.T, n *cluster.Node, name string) string {
	t.Helper()
	var r api.Report
	if err := json.Unmarshal([]byte(do(t, n, "report")), &r); err != nil {
		t.Fatal(err)
	}
	return r.Flags[name]
}

// TestStandardAES: a node that encrypts by the standard library and one that does not have sessions with each other.
func TestStandardAES(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	secret := newSecret(t)
	for i, n := range nodes {
		writeSecret(t, n, secret)
		upSealed(t, nodes, n, "--datapath", "userspace", "--cipher", "aes-256-gcm", "--aes", []string{"standard", "auto"}[i])
	}
	waitReady(t, nodes)
	if got := flagOf(t, nodes[0], "--aes"); got != "standard" {
		t.Errorf("--aes is %q", got)
	}
	p, q := attach(t, nodes[0], "p"), attach(t, nodes[1], "p")
	p.reaches(t, q.addr)
	q.reaches(t, p.addr)
	waitCarried(t, nodes, api.DatapathUserspace, aes)
}

// TestAllowOverlap: a range that overlaps a route of the host is refused, unless --allow-overlap is set; the longer route wins then.
func TestAllowOverlap(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	for _, n := range nodes {
		labtest.Run(t, n.Space, "ip", "link", "add", "vpn", "type", "bridge")
		labtest.Run(t, n.Space, "ip", "link", "set", "vpn", "up")
		labtest.Run(t, n.Space, "ip", "route", "add", "10.33.0.0/16", "dev", "vpn")
	}
	up(t, nodes[0])
	if err := nodes[0].Process().Wait(); cluster.ExitCode(err) != 2 || !strings.Contains(nodes[0].Process().Logs(), "--allow-overlap") {
		t.Errorf("without the flag: %v: %s", err, nodes[0].Process().Logs())
	}
	start(t, nodes, "--allow-overlap")
	attach(t, nodes[0], "p").reaches(t, attach(t, nodes[1], "p").addr)
	if list := conditions(t, nodes[0], health.RangeRoutedElsewhere); len(list) > 0 {
		t.Errorf("a condition about what was allowed: %+v", list)
	}
}

// TestBusyPoll: a node with --busy-poll works, whether the host can keep its CPUs awake or not, and shows which of both.
func TestBusyPoll(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes, "--busy-poll", "auto", "--datapath", "userspace")
	attach(t, nodes[0], "p").reaches(t, attach(t, nodes[1], "p").addr)
	if got := flagOf(t, nodes[0], "--busy-poll"); got != "auto" {
		t.Errorf("--busy-poll is %q", got)
	}
	for _, c := range conditions(t, nodes[0], health.BusyPollUnavailable) {
		t.Logf("%s %s", c.Text, c.Remedy)
	}
}

// TestNamesAndPorts: a node with other names, ports and log settings than the default ones works with them.
func TestNamesAndPorts(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	for i, n := range nodes {
		up(t, n, "--bridge", "br9", "--tap", "tap9", "--port", "7783", "--http-addr", "127.0.0.1:7782", "--log-format", "json",
			"--log-level", "debug", "--peer-metrics", strconv.Itoa(i), nodes[1-i].Addr().String()+":7783")
	}
	waitReady(t, nodes)
	attach(t, nodes[0], "p").reaches(t, attach(t, nodes[1], "p").addr)
	for i, n := range nodes {
		metrics := labtest.Run(t, n.Space, "curl", "-sf", "http://127.0.0.1:7782/metrics")
		if each := strings.Contains(metrics, "weft_peer_info{"); each != (i > 0) || !strings.Contains(metrics, "weft_peers{") {
			t.Errorf("with one peer and --peer-metrics %d, there are metrics of each peer: %t", i, each)
		}
		have := links(t, n.Host)
		if !slices.Contains(have, "br9") || !slices.Contains(have, "tap9") || slices.Contains(have, "weave") {
			t.Errorf("links %v", have)
		}
		labtest.Run(t, n.Space, "curl", "-sf", "http://127.0.0.1:7782/healthz")
		debug := false
		for line := range strings.Lines(n.Process().Logs()) {
			var entry struct{ Level string }
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Errorf("the log line %q: %v", line, err)
			}
			debug = debug || entry.Level == "DEBUG"
		}
		if !debug {
			t.Error("the log has no line of level DEBUG")
		}
	}
}
