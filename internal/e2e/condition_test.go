package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/health"
	"weft/internal/nettest/labtest"
)

// TestConditions: a node without a secret reports it as a condition, with the same text as a warning and as a metric; a dead node
// is a condition while it is dead.
func TestConditions(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes)
	s := query[api.Status](t, nodes[0], "status")
	if len(s.Conditions) != len(s.Warnings) {
		t.Errorf("%d conditions and %d warnings", len(s.Conditions), len(s.Warnings))
	}
	for i, c := range s.Conditions {
		if s.Warnings[i] != strings.TrimSpace(c.Text+" "+c.Remedy) || c.Title == "" || c.Since.IsZero() || time.Since(c.Since) < 0 {
			t.Errorf("%+v beside the warning %q", c, s.Warnings[i])
		}
	}
	found := conditions(t, nodes[0], health.NoSecret)
	if len(found) != 1 || found[0].Severity != api.SeverityWarning || !strings.Contains(found[0].Remedy, "weft secret generate") {
		t.Errorf("%+v", found)
	}
	metric := func(code health.Code, severity api.Severity, value int) error {
		line := fmt.Sprintf("weft_condition{code=%q,severity=%q} %d\n", code, severity, value)
		if text := labtest.Run(t, nodes[0].Space, "curl", "-s", "http://127.0.0.1:6782/metrics"); !strings.Contains(text, line) {
			return fmt.Errorf("the metrics do not have %q", line)
		}
		return nil
	}
	if err := metric(health.NoSecret, api.SeverityWarning, 1); err != nil {
		t.Error(err)
	}
	if err := metric(health.PeerDead, api.SeverityWarning, 0); err != nil {
		t.Error(err)
	}
	nodes[1].Process().Kill()
	labtest.Until(t, patience, func() error {
		if found := conditions(t, nodes[0], health.PeerDead); len(found) != 1 || !strings.Contains(found[0].Remedy, "weft reclaim") {
			return fmt.Errorf("the conditions of b: %+v", found)
		}
		return metric(health.PeerDead, api.SeverityWarning, 1)
	})
	if out := do(t, nodes[0], "peers", "--problems"); !strings.Contains(out, " dead ") || !strings.Contains(out, "1 of 2 nodes") {
		t.Errorf("the nodes with problems:\n%s", out)
	}
	up(t, nodes[1], others(nodes, nodes[1])...)
	labtest.Until(t, patience, func() error {
		if found := conditions(t, nodes[0], health.PeerDead); len(found) != 0 {
			return fmt.Errorf("b is back: %+v", found)
		}
		return nil
	})
}

// TestReloadOfAnUnchangedNode: flags without a value, such as --queues, do not count as changed.
func TestReloadOfAnUnchangedNode(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	up(t, n)
	do(t, n, "wait", "--for", "ready", "--timeout", patience.String())
	if out := do(t, n, "reload"); !strings.Contains(out, "nothing has changed") {
		t.Errorf("weft reload: %s", out)
	}
}

// TestWaitChangesNothing: a GET of /v1/wait does not divide the range of a node that waits for a reason to; "weft wait" does.
func TestWaitChangesNothing(t *testing.T) {
	t.Parallel()
	n := newNodes(t, "a")[0]
	up(t, n)
	do(t, n, "wait", "--for", "ready", "--timeout", patience.String())
	url := "http://weft/v1/wait?for=ipam&timeout=1s"
	if out := labtest.Run(t, n.Space, "curl", "-s", "--unix-socket", n.Socket(), url); !strings.Contains(out, "not divided yet") {
		t.Errorf("GET /v1/wait: %s", out)
	}
	if state := query[api.IPAM](t, n, "ipam").State; state != api.IPAMIdle {
		t.Errorf("the range is %s after a GET", state)
	}
	do(t, n, "wait", "--for", "ipam", "--timeout", patience.String())
	if state := query[api.IPAM](t, n, "ipam").State; state != api.IPAMReady {
		t.Errorf("the range is %s after \"weft wait\"", state)
	}
}

// TestFreshNetworkDropsNothing: nodes that start at the same time, before anything is wrong, count no drop: an operator would look for an
// attacker or a middlebox.
func TestFreshNetworkDropsNothing(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	start(t, nodes)
	p, q := attach(t, nodes[0], "p"), attach(t, nodes[2], "q")
	p.reaches(t, q.addr)
	for _, n := range nodes {
		if s := query[api.Status](t, n, "status"); len(s.Drops) != 0 {
			t.Errorf("%s drops %v", n.Label(), s.Drops)
		}
		for _, peer := range query[[]api.Peer](t, n, "peers") {
			if len(peer.Drops) != 0 {
				t.Errorf("%s drops %v of %s", n.Label(), peer.Drops, peer.Name)
			}
		}
	}
}
