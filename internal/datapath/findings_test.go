package datapath

import (
	"errors"
	"strings"
	"testing"
	"time"

	"weft/internal/health"
	"weft/internal/peer"
	"weft/internal/settings"
	"weft/router/vxlan"
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

func TestBridgeFindings(t *testing.T) {
	d := &Datapath{settings: &settings.Config{Bridge: "weave", Tap: "weft0"}}
	now := time.Now()
	wantFinding(t, "nothing happened", d.bridgeFindings(now), "")
	d.bridge.repairs.Store(&repairs{count: 3, last: now.Add(-time.Minute)})
	wantFinding(t, "repaired", d.bridgeFindings(now), health.BridgeRepaired, "missing 3 times", "NetworkManager")
	wantFinding(t, "long ago", d.bridgeFindings(now.Add(repairedFor)), "")
	d.bridge.repairs.Store(&repairs{err: errors.New("no permission")})
	wantFinding(t, "not repaired", d.bridgeFindings(now), health.BridgeBroken, "cannot be repaired: no permission")
}

func TestRuleFindings(t *testing.T) {
	d := &Datapath{settings: &settings.Config{}}
	wantFinding(t, "not tried", d.ruleFindings(), "")
	if d.bridge.rulesTried() {
		t.Error("the rules count as tried")
	}
	var none error
	d.bridge.rulesErr.Store(&none)
	wantFinding(t, "set", d.ruleFindings(), "")
	failed := errors.New("no nft")
	d.bridge.rulesErr.Store(&failed)
	wantFinding(t, "failed", d.ruleFindings(), health.MasqueradeFailed, "no nft", "nftables")
}

// TestKernelPathUnproven: a peer that the kernel could carry and has not carried for long is reported, and no other.
func TestKernelPathUnproven(t *testing.T) {
	now := time.Now()
	a, b, c := peer.ID{1}, peer.ID{2}, peer.ID{3}
	peers := []vxlan.PeerStatus{
		{ID: a, State: vxlan.Userspace, Since: now.Add(-kernelPatience)},
		{ID: b, State: vxlan.Kernel, Since: now.Add(-time.Hour)},
		{ID: c, State: vxlan.Userspace, Since: now.Add(1 - kernelPatience)},
	}
	if ids := unproven(peers, now); len(ids) != 1 || ids[0] != a {
		t.Errorf("%v, want %s", ids, a)
	}
}
