package daemon

import (
	"errors"
	"syscall"
	"testing"

	"weft/internal/api"
	"weft/mesh"
)

// TestTargetsFound: a node that runs tells of its targets, in one line, without dialling them once more.
func TestTargetsFound(t *testing.T) {
	for detail, targets := range map[string][]mesh.TargetStatus{
		"none is to be dialled": nil,
		"2 of 2 reached":        {{Target: mesh.Target{Host: "a", Port: 6783}}, {Target: mesh.Target{Host: "b", Port: 6783}}},
		"not reached: a:6783 (connection refused), b:6783 (1 error: timeout)": {
			{Target: mesh.Target{Host: "a", Port: 6783}, Err: errors.Join(syscall.ECONNREFUSED)},
			{Target: mesh.Target{Host: "b", Port: 6783}, Err: errors.New("1 error:\n\ttimeout")},
		},
	} {
		if f := targetsFound(targets, 6783); f.detail != detail {
			t.Errorf("%+v, want %q", f, detail)
		}
	}
}

// TestComplete: what the node may not look at is looked at by who asks, and nothing else.
func TestComplete(t *testing.T) {
	found := []api.Check{
		finding{unknown: true, detail: "not seen"}.doc(checkClock), well("1 of 1 reached").doc(checkPeers),
	}
	Complete(found)
	if found[0].Result == api.CheckUnknown || found[1].Detail != "1 of 1 reached" {
		t.Errorf("%+v", found)
	}
}
