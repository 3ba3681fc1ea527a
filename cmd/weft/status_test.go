package main

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/peer"
)

func TestStatusText(t *testing.T) {
	s := api.Status{
		Version: "1.0", ID: peer.ID{1}, Name: "host1", Bridge: "weave", Tap: "weft0", MTU: 1422, FDB: 1, Queues: 1, Secrets: 2,
		Datapath: api.DatapathMixed, Encrypted: true, Peers: map[api.PeerState]int{api.PeerAlive: 2, api.PeerDead: 1},
		Since:   time.Date(2026, 11, 28, 22, 17, 58, 0, time.Local),
		Targets: []api.Target{{Addr: "host2:6783", Error: "dial tcp 192.0.2.12:6783: connect: connection refused"}},
		Guard:   api.GuardStatus{Bound: 1},
		Conditions: []api.Condition{
			{Severity: api.SeverityInfo, Text: "Some nodes do not accept the first secret yet: host3.",
				Remedy: "Add it there and run \"weft reload\"."},
			{Severity: api.SeverityWarning, Text: "Node host3 (6cee6b524165fa5c at 192.0.2.13) is dead; it owns 404138 addresses.",
				Remedy: "Start it again, or if it will not return run \"weft reclaim 6cee6b524165fa5c\"."},
			{Severity: api.SeverityError, Text: "The bridge is gone."},
		},
	}
	for name, d := range map[string]display{
		"status-plain": {}, "status-terminal": {width: 80, color: true}, "status-narrow": {width: 50},
	} {
		var b strings.Builder
		writeStatus(&b, s, d)
		checkGolden(t, name, b.String())
	}
}

// TestLargeStatus: a status of a thousand nodes, of which many are dead, fits on a screen.
func TestLargeStatus(t *testing.T) {
	s := api.Status{Peers: map[api.PeerState]int{api.PeerAlive: 900, api.PeerDead: 100}}
	for i := range 1000 {
		target := api.Target{Addr: fmt.Sprintf("192.0.2.%d:6783", i)}
		if i%10 == 0 {
			target.Error = "connection refused"
			dead := api.Condition{Code: "peer_dead", Severity: api.SeverityWarning, Text: fmt.Sprintf("Node %d is dead.", i)}
			s.Conditions = append(s.Conditions, dead)
		}
		s.Targets = append(s.Targets, target)
	}
	s.Conditions = append(s.Conditions, api.Condition{Code: "no_secret", Severity: api.SeverityInfo, Text: "Plain."})
	var b strings.Builder
	writeStatus(&b, s, display{})
	out := b.String()
	if lines := strings.Count(out, "\n"); lines > 40 {
		t.Errorf("%d lines", lines)
	}
	for _, want := range []string{
		"Target  192.0.2.0:6783 not reached: connection refused", "Targets  900 of 1000 reached", "Node 40 is dead.",
		"95 more conditions are of this kind (peer_dead)", "Plain.",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	if strings.Contains(out, "Node 50 ") || strings.Contains(out, "192.0.2.990") {
		t.Errorf("too much in\n%s", out)
	}
}

// TestProblems: nodes that are well are left out.
func TestProblems(t *testing.T) {
	for want, list := range map[bool][]api.Peer{
		true: {{State: api.PeerAlive, Self: true}, {State: api.PeerAlive, Link: api.LinkDirect}, {State: api.PeerLeft}},
		false: {
			{State: api.PeerDead}, {State: api.PeerAlive, Link: api.LinkRelay}, {State: api.PeerAlive, Link: api.LinkNone},
			{State: api.PeerAlive, Link: api.LinkDirect, Refused: "revoked"}, {State: api.PeerDead, Link: api.LinkDirect},
		},
	} {
		for _, p := range list {
			if isWell(p) != want {
				t.Errorf("%+v is well: %t", p, !want)
			}
		}
	}
}

func TestDoctorText(t *testing.T) {
	checks := []api.Check{
		{Name: "kernel", Result: api.CheckOK, Detail: "Linux 6.1"},
		{Name: "state", Result: api.CheckWarn, Detail: "others than its owner can read it: mode 0755",
			Remedy: "Run \"chmod 0700 /var/lib/weft\"."},
		{Name: "nftables", Result: api.CheckFail, Detail: "the program nft is missing, so pods cannot reach addresses outside of the overlay",
			Remedy: "Install the nftables package."},
	}
	for name, d := range map[string]display{"doctor-plain": {}, "doctor-terminal": {width: 80, color: true}} {
		var b strings.Builder
		writeChecks(&b, checks, d)
		checkGolden(t, name, b.String())
	}
}

// TestColorFlag: --color wins over the environment; without it an output that is no terminal has no colors.
func TestColorFlag(t *testing.T) {
	t.Setenv("NO_COLOR", "1")
	for flag, want := range map[string]bool{colorAuto: false, colorAlways: true, colorNever: false} {
		if d, err := displayOf(&strings.Builder{}, flag); err != nil || d.color != want || d.width != 0 {
			t.Errorf("--color %s: %+v, %v", flag, d, err)
		}
	}
	if _, err := displayOf(&strings.Builder{}, "blue"); err == nil {
		t.Error("blue is accepted")
	}
}
