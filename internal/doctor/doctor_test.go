package doctor

import (
	"errors"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/settings"
)

// goodConfig returns a Config that Validate accepts, with files of its own.
func goodConfig(t *testing.T) settings.Config {
	t.Helper()
	return settings.Config{
		Name: "a", StateDir: t.TempDir(), Socket: filepath.Join(t.TempDir(), "s"), Bridge: settings.DefaultBridge, Tap: settings.DefaultTap,
		Port: settings.DefaultPort, Ranges: []netip.Prefix{netip.MustParsePrefix(settings.DefaultRange)}, InitPeers: settings.BootstrapFromPeers,
		Cipher: settings.CipherAuto, Datapath: settings.DatapathAuto, Offload: settings.OffloadAuto, HTTPAddr: settings.DefaultHTTPAddr,
	}
}

// TestTargetsOfARunningNode: the result is one line, and names what is not reached.
func TestTargetsOfARunningNode(t *testing.T) {
	for detail, targets := range map[string][]Target{
		"there are none to dial": nil,
		"2 of 2 reached":         {{Addr: "a:6783"}, {Addr: "b:6783"}},
		"not reached: a:6783 (connection refused), b:6783 (1 error: timeout)": {
			{Addr: "a:6783", Err: errors.Join(syscall.ECONNREFUSED)},
			{Addr: "b:6783", Err: errors.New("1 error:\n\ttimeout")},
		},
	} {
		found := []api.Check{ok("x").doc("tun"), ok("x").doc(checkPeers)}
		ReplacePeers(found, targets, 6783)
		if found[1].Detail != detail || found[0].Detail != "x" {
			t.Errorf("%+v, want %q", found, detail)
		}
	}
}

// TestComplete: the caller checks what the node could not check, and nothing else.
func TestComplete(t *testing.T) {
	found := []api.Check{finding{unknown: true, detail: "not seen"}.doc(checkClock), ok("1 of 1 reached").doc(checkPeers)}
	Complete(found)
	if found[0].Result == api.CheckUnknown || found[1].Detail != "1 of 1 reached" {
		t.Errorf("%+v", found)
	}
}

// TestWithoutNFT: where nft cannot list chains, as for a user that is not root, the result is unknown rather than ok, and its
// text is one line.
func TestWithoutNFT(t *testing.T) {
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "nft"), []byte("#!/bin/sh\nprintf 'one\\ntwo\\n' >&2\nexit 1\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{t.TempDir(), bin} {
		t.Setenv("PATH", path)
		found := map[string]api.Check{}
		for _, c := range Run(t.Context(), goodConfig(t)) {
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

// TestBesideARunningNode: the checks that the running node fails by itself are not run, but Preflight runs them.
func TestBesideARunningNode(t *testing.T) {
	cfg := goodConfig(t)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	server := http.Server{Handler: http.NotFoundHandler()}
	defer server.Close()
	go func() { _ = server.Serve(l) }()
	for _, c := range Run(t.Context(), cfg) {
		exclusive := c.Name == "socket" || c.Name == "tap" || c.Name == "ports"
		if exclusive != strings.HasPrefix(c.Detail, "held by the node") {
			t.Errorf("%s: %q", c.Name, c.Detail)
		}
	}
	if f := checkSocket(t.Context(), &cfg); f.fatal == nil || f.remedy == "" {
		t.Errorf("a second daemon at the socket would start: %+v", f)
	}
}

// TestSocketOfAKilledNode: a connection that ends without an answer is none to a daemon.
func TestSocketOfAKilledNode(t *testing.T) {
	cfg := goodConfig(t)
	var lc net.ListenConfig
	l, err := lc.Listen(t.Context(), "unix", cfg.Socket)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		if c, err := l.Accept(); err == nil {
			_ = c.Close()
		}
		_ = l.Close()
	}()
	if f := checkSocket(t.Context(), &cfg); f.fatal != nil {
		t.Errorf("%+v", f)
	}
}

// TestPreflightIsASubset: Preflight fails by the error of a check of the table, with its hint.
func TestPreflightIsASubset(t *testing.T) {
	cfg := goodConfig(t)
	cfg.Port = 0
	err := Preflight(t.Context(), cfg)
	if e, ok := errors.AsType[*hint.Error](err); !ok || e.Subject != "--port" || e.Hint == "" {
		t.Errorf("%v, want a refusal of --port", err)
	}
	names := map[string]bool{}
	for _, k := range checks {
		if names[k.name] {
			t.Errorf("two checks are called %s", k.name)
		}
		names[k.name] = true
	}
}

// TestDegrade: a fault that a node can live with keeps its text and remedy, without the flag that is not at fault.
func TestDegrade(t *testing.T) {
	c := fail(hint.Refuse("--datapath", "Load it.", "no VXLAN")).degrade().doc("vxlan")
	if c.Result != api.CheckWarn || c.Detail != "no VXLAN" || c.Remedy != "Load it." {
		t.Errorf("%+v", c)
	}
	if c := ok("fine").degrade().doc("vxlan"); c.Result != api.CheckOK || c.Detail != "fine" {
		t.Errorf("%+v", c)
	}
}
