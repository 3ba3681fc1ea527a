package datapath

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/guard"
	"weft/internal/health"
	"weft/internal/hoststate"
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

// TestRepairFindings: repairs are a condition for some minutes, and what cannot be restored is one as long as that is so.
func TestRepairFindings(t *testing.T) {
	d := &Datapath{settings: &settings.Config{Bridge: "weave", Tap: "weft0"}}
	now := time.Now()
	wantFinding(t, "nothing happened", d.repairFindings(now), "")
	for range 3 {
		d.repairs.add("up", "weft0 is down", now)
	}
	d.repairs.add("address", "weave lacks the address 10.40.0.1/12", now)
	wantFinding(t, "repaired", d.repairFindings(now), health.BridgeRepaired, "4 times", "10.40.0.1/12; weft0 is down", "NetworkManager")
	for i := range 2 * maxRecent {
		d.repairs.add("up", fmt.Sprintf("vweft%d is down", i), now)
	}
	if recent := d.repairs.snapshot().recent; len(recent) != maxRecent {
		t.Errorf("recent repairs: %q", recent)
	}
	later := now.Add(repairedFor + 1)
	wantFinding(t, "long ago", d.repairFindings(later), "")
	d.repairs.setFailed([]failure{{what: "weave is down", err: errors.New("no permission")}})
	wantFinding(t, "not repaired", d.repairFindings(later), health.BridgeBroken, "cannot restore it: no permission")
	d.repairs.setFailed([]failure{{what: "the setting net/ipv4/ip_forward is not 1", setting: true, err: errors.New("read-only")}})
	wantFinding(t, "a setting", d.repairFindings(later), health.HostSetting, "ip_forward", "read-only", "sysctl")
	d.repairs.setFailed(nil)
	d.repairs.setContested([]hoststate.Contested{
		{Key: hoststate.Key{Kind: hoststate.SetUp, Object: "weft0"}, Repairs: 9, Pause: 16 * time.Second}})
	wantFinding(t, "contested", d.repairFindings(later), health.RepairContested, "weft0 (up)", "9 times in a row", "waits 16s")
	d.repairs.setContested(nil)
	d.repairs.setMoved([]hoststate.Link{{Name: "vweft1", Master: "br1"}})
	wantFinding(t, "moved", d.repairFindings(later), health.PodPortMoved, "vweft1", "ip link set vweft1 master weave")
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
