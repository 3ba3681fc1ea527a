package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
)

// Limits for an idle daemon in a network of twenty. The goals are 20 s, 40 MiB and 1 % of a core. The limits are higher,
// because the machine may run other tests at the same time. The test logs the figures.
const (
	manyBootstrap = 60 * time.Second
	manyRSS       = 48 << 20         // bytes
	manyCPU       = 0.04             // of a core
	manyIdle      = 30 * time.Second // how long the idle network is measured
)

// TestManyDaemons: twenty daemons that start at the same time form one network soon, and use few resources when idle. The
// limits hold for each daemon.
func TestManyDaemons(t *testing.T) {
	names := make([]string, 20)
	for i := range names {
		names[i] = fmt.Sprintf("n%d", i)
	}
	nodes := newNodes(t, names...)
	begin := time.Now()
	for _, n := range nodes {
		up(t, n, append([]string{"--init-peers", strconv.Itoa(len(nodes))}, nodes[0].Addr().String(), nodes[1].Addr().String())...)
	}
	for _, n := range nodes {
		do(t, n, "wait", "--for", fmt.Sprintf("peers=%d", len(nodes)), "--timeout", manyBootstrap.String())
		do(t, n, "wait", "--for", "ready", "--timeout", manyBootstrap.String())
	}
	formed := time.Since(begin)
	var total uint64
	for _, owner := range query[api.IPAM](t, nodes[7], "ipam").Ranges[0].Owners {
		total += owner.Addresses
	}
	if total != 1<<20 {
		t.Errorf("%d addresses have an owner, want all %d", total, 1<<20)
	}
	before := make([]time.Duration, len(nodes))
	for i, n := range nodes {
		before[i] = cpuTime(t, n)
	}
	idle := time.NewTimer(manyIdle)
	defer idle.Stop()
	<-idle.C
	var rss int64
	var cpu float64
	for i, n := range nodes {
		rss = max(rss, residentSize(t, n))
		cpu = max(cpu, (cpuTime(t, n)-before[i]).Seconds()/manyIdle.Seconds())
	}
	t.Logf("formed within %s; at most %.1f MiB resident and %.2f %% of a core each, idle",
		formed.Round(100*time.Millisecond), float64(rss)/(1<<20), 100*cpu)
	if formed > manyBootstrap || rss > manyRSS || cpu > manyCPU {
		t.Errorf("want at most %s, %d MiB, %.0f %%", manyBootstrap, manyRSS>>20, 100*manyCPU)
	}
}

// residentSize returns the resident memory of a node's daemon in bytes.
func residentSize(t *testing.T, n *cluster.Node) int64 {
	t.Helper()
	pages, err := strconv.ParseInt(strings.Fields(procFile(t, n, "statm"))[1], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// cpuTime returns the CPU time that a node's daemon has used.
func cpuTime(t *testing.T, n *cluster.Node) time.Duration {
	t.Helper()
	text := procFile(t, n, "stat")
	fields := strings.Fields(text[strings.LastIndex(text, ")")+1:])
	var ticks int64
	for _, f := range fields[11:13] { // utime and stime
		v, err := strconv.ParseInt(f, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += v
	}
	return time.Duration(ticks) * time.Second / 100 // USER_HZ
}

func procFile(t *testing.T, n *cluster.Node, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(n.Process().Pid()), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
