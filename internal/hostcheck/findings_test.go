package hostcheck

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"weft/internal/health"
	"weft/internal/hostfilter"
	"weft/internal/hostnet"
	"weft/internal/hostports"
	"weft/internal/hostroutes"
	"weft/internal/podprobe"
)

var (
	range4 = netip.MustParsePrefix("10.32.0.0/12")
	range6 = netip.MustParsePrefix("fd32::/64")
)

// loss returns a loss by the policy of a chain.
func loss(kind hostfilter.Traffic, verdict hostfilter.Verdict) hostfilter.Loss {
	chain := &hostfilter.Chain{Backend: hostfilter.Legacy, Family: hostfilter.IPv4, Table: "filter", Name: "FORWARD", Drops: true}
	result := hostfilter.Result{Verdict: verdict, Chain: chain}
	return hostfilter.Loss{Traffic: kind, What: "IPv4 of pods", Result: result, Remedy: "Accept it."}
}

func TestFindings(t *testing.T) {
	probes := func(passed4, passed6 bool) []podprobe.Result {
		return []podprobe.Result{{Range: range4, Passed: passed4}, {Range: range6, Passed: passed6}}
	}
	lost := func(kind hostfilter.Traffic, verdict hostfilter.Verdict) state {
		return state{losses: []hostfilter.Loss{loss(kind, verdict)}}
	}
	pods := []hostfilter.Loss{loss(hostfilter.PodsToPods, hostfilter.Drops)}
	route := hostroutes.Connected(netip.MustParsePrefix("10.40.0.0/16"), "tun0")
	conflicts := []hostroutes.Conflict{{Part: route.Dst, Route: route}}
	failed := errors.New("no nft")
	ports := []hostports.Port{{Name: "default/web", HostPort: 8080, Protocol: "tcp"}}
	for name, tt := range map[string]struct {
		state state
		code  health.Code // empty: no finding
		says  string
	}{
		"nothing":            {state{}, "", ""},
		"probes pass":        {state{probes: probes(true, true)}, "", ""},
		"probes know better": {state{probes: probes(true, true), losses: pods}, "", ""},
		"dropped":            {state{probes: probes(false, false), losses: pods}, health.PodTrafficFiltered, "by IPv4 and IPv6"},
		"the culprit":        {state{probes: probes(false, true), losses: pods}, health.PodTrafficFiltered, "by default. Accept it."},
		"IPv6 alone":         {state{probes: probes(true, false)}, health.PodTrafficFiltered, "by IPv6"},
		"no culprit":         {state{probes: probes(false, true)}, health.PodTrafficFiltered, "the rule is not known"},
		"no probes":          {state{losses: pods}, health.PodTrafficFiltered, "iptables-legacy"},
		"unclear, no probes": {lost(hostfilter.PodsToPods, hostfilter.Unclear), "", ""},
		"clients":            {lost(hostfilter.ClientsToPods, hostfilter.Drops), health.ClientTrafficFiltered, "drop IPv4 of pods"},
		"outside":            {lost(hostfilter.PodsToOutside, hostfilter.Drops), health.OutsideTrafficFiltered, "drop IPv4 of pods"},
		"outside, unclear":   {lost(hostfilter.PodsToOutside, hostfilter.Unclear), "", ""},
		"a port of the node": {lost(hostfilter.NodesToNode, hostfilter.Drops), health.NodePortFiltered, "Accept it."},
		"a route":            {state{conflicts: conflicts}, health.RangeRoutedElsewhere, "10.40.0.0/16 dev tun0"},
		"a hidden host":      {state{hidden: []netip.Addr{netip.MustParseAddr("10.33.0.1")}}, health.RangeHidesHosts, "10.33.0.1"},
		"too many neighbors": {
			state{full: []hostnet.NeighborTable{{Family: "ipv4", Limit: 1024, Entries: 1023, Overflows: 3}}}, health.NeighborTableFull,
			"sysctl -w net.ipv4.neigh.default.gc_thresh3=16384 net.ipv4.neigh.default.gc_thresh2=8192",
		},
		"flushed ports":             {state{flushed: ports}, health.HostPortsFlushed, "8080/tcp of default/web"},
		"ports that cannot be back": {state{flushed: ports, portsErr: failed}, health.HostPortsFlushed, "(no nft): 8080/tcp"},
	} {
		got := tt.state.findings("weave")
		if tt.code == "" {
			if len(got) != 0 {
				t.Errorf("%s: %+v", name, got)
			}
			continue
		}
		if len(got) != 1 || got[0].Code != tt.code || got[0].Remedy == "" || !strings.Contains(got[0].Sentences(), tt.says) {
			t.Errorf("%s: %+v, want %s with %q", name, got, tt.code, tt.says)
		}
	}
}

// TestReadiness: only a probe that was dropped, and a bridge that runs STP and cannot be probed yet, make the node not ready.
func TestReadiness(t *testing.T) {
	c := New(Config{})
	for _, tt := range []struct {
		state state
		ready bool
	}{
		{state{}, true}, {state{losses: []hostfilter.Loss{loss(hostfilter.PodsToPods, hostfilter.Drops)}}, true},
		{state{probes: []podprobe.Result{{Range: range4, Passed: true}}}, true},
		{state{probes: []podprobe.Result{{Range: range4, Passed: true}, {Range: range6}}}, false}, {state{waits: true}, false},
	} {
		c.state.Store(&tt.state)
		if missing := c.Missing(); (missing == "") != tt.ready {
			t.Errorf("%+v: %q", tt.state, missing)
		}
	}
}

// TestPace: a look is due after a change and after its period, and never before a multiple of the time that the last one took.
func TestPace(t *testing.T) {
	begin := time.Unix(1000, 0)
	p := pace{period: 10 * time.Second, share: 20}
	var due []bool
	at := func(after time.Duration) { due = append(due, p.due(begin.Add(after))) }
	at(0)
	p.took(begin, begin.Add(100*time.Millisecond)) // the next one at 2.1 s
	at(time.Second)
	p.changed = true
	at(2 * time.Second)
	at(3 * time.Second)
	p.took(begin.Add(3*time.Second), begin.Add(3*time.Second))
	at(12 * time.Second)
	at(13 * time.Second)
	if want := []bool{true, false, false, true, false, true}; !slices.Equal(due, want) {
		t.Errorf("%v, want %v", due, want)
	}
}

// TestNeighbors: only overflows since the first look count, and the condition ends some time after the last one.
func TestNeighbors(t *testing.T) {
	proc, c, now := t.TempDir(), New(Config{Logger: slog.New(slog.DiscardHandler)}), time.Unix(1_800_000_000, 0)
	look := func(overflows int, after time.Duration) int {
		t.Helper()
		for name, text := range map[string]string{
			"sys/net/ipv4/neigh/default/gc_thresh3": "1024\n", "net/stat/arp_cache": fmt.Sprintf("entries table_fulls\n10 %x\n", overflows),
		} {
			path := filepath.Join(proc, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		now = now.Add(after)
		c.lookAtNeighbors(proc, now)
		return len(c.Findings())
	}
	for _, step := range []struct {
		overflows int
		after     time.Duration
		want      int
	}{{500, 0, 0}, {500, time.Minute, 0}, {501, time.Minute, 1}, {501, time.Minute, 1}, {501, time.Hour, 0}, {3, time.Minute, 0}} {
		if got := look(step.overflows, step.after); got != step.want {
			t.Errorf("%d overflows after %s: %d findings, want %d", step.overflows, step.after, got, step.want)
		}
	}
}
