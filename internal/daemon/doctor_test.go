package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
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

// TestDoctorWithoutNFT: where nft cannot tell what it drops, as for who is not root, nobody says that it drops nothing; what it says of that is
// one line.
func TestDoctorWithoutNFT(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "nft"), []byte("#!/bin/sh\nprintf 'one\\ntwo\\n' >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{t.TempDir(), bin} {
		t.Setenv("PATH", path)
		cfg := goodConfig()
		cfg.Socket, cfg.StateDir = filepath.Join(t.TempDir(), "s"), t.TempDir()
		found := map[string]api.Check{}
		for _, c := range Doctor(t.Context(), cfg) {
			found[c.Name] = c
			if strings.Contains(c.Detail, "\n") {
				t.Errorf("%s: %q", c.Name, c.Detail)
			}
		}
		if c := found["firewall"]; c.Result != api.CheckUnknown {
			t.Errorf("%+v", c)
		}
		if c := found["nftables"]; c.Result != api.CheckWarn {
			t.Errorf("%+v", c)
		}
	}
}
