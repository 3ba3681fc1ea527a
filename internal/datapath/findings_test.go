package datapath

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/guard"
	"weft/internal/health"
	"weft/internal/peer"
	"weft/internal/settings"
	"weft/router/carrier"
)

// wantFinding fails unless there is one finding of the given code that contains the given texts; no code: no finding.
func wantFinding(t *testing.T, what string, got []health.Finding, code health.Code, contains ...string) {
	t.Helper()
	if code == "" {
		if len(got) != 0 {
			t.Errorf("%s: %+v, want none", what, got)
		}
		return
	}
	if len(got) != 1 || got[0].Code != code || got[0].Remedy == "" {
		t.Errorf("%s: %+v, want one of %s with a remedy", what, got, code)
		return
	}
	for _, text := range contains {
		if !strings.Contains(got[0].Sentences(), text) {
			t.Errorf("%s: %q does not contain %q", what, got[0].Sentences(), text)
		}
	}
}

func TestRuleFindings(t *testing.T) {
	d := &Datapath{settings: &settings.Config{}}
	wantFinding(t, "not tried", d.ruleFindings(), "")
	if d.rulesErr.Load() != nil {
		t.Error("the rules count as tried")
	}
	var none error
	d.rulesErr.Store(&none)
	wantFinding(t, "set", d.ruleFindings(), "")
	failed := errors.New("no nft")
	d.rulesErr.Store(&failed)
	wantFinding(t, "failed", d.ruleFindings(), health.MasqueradeFailed, "no nft", "nftables")
}

// TestKernelPathUnproven: a peer that the kernel could carry and has not carried for long is reported, and no other.
func TestKernelPathUnproven(t *testing.T) {
	now := time.Now()
	a, b, c := peer.ID{1}, peer.ID{2}, peer.ID{3}
	peers := []carrier.PeerStatus{
		{ID: a, State: carrier.Paused, Since: now.Add(-kernelPatience)},
		{ID: b, State: carrier.Carrying, Since: now.Add(-time.Hour)},
		{ID: c, State: carrier.Paused, Since: now.Add(1 - kernelPatience)},
	}
	if ids := unproven(peers, now); len(ids) != 1 || ids[0] != a {
		t.Errorf("%v, want %s", ids, a)
	}
}

func TestGuardFindings(t *testing.T) {
	store, err := guard.OpenStore(filepath.Join(t.TempDir(), "guard.json"))
	if err != nil {
		t.Fatal(err)
	}
	d := &Datapath{settings: &settings.Config{}}
	d.guards = &guards{store: store, d: d}
	wantFinding(t, "in force", d.guardFindings(), "")
	d.guards.err = guard.ErrNoNFT
	wantFinding(t, "not requested", d.guardFindings(), health.HostGuardFailed, "nft", "nftables")
	e := guard.Entry{Port: guard.Port{Link: "vwefta", MAC: ether.Addr{2}}, Mode: api.GuardOff}
	if err := store.Put(e); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, "an open port", d.guardFindings(), health.HostGuardFailed)
	e.Mode = api.GuardPods
	if err := store.Put(e); err != nil {
		t.Fatal(err)
	}
	wantFinding(t, "a bound port", d.guardFindings(), health.GuardFailed, "nft", "nftables")
	if err := store.Delete(e.Link); err != nil {
		t.Fatal(err)
	}
	d.settings.Guard = api.GuardPods
	wantFinding(t, "requested", d.guardFindings(), health.GuardFailed)
}
