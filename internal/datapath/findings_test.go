package datapath

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/guard"
	"weft/internal/health"
	"weft/internal/health/healthtest"
	"weft/internal/peer"
	"weft/internal/settings"
	"weft/router/carrier"
)

func TestRuleFindings(t *testing.T) {
	d := &Datapath{settings: &settings.Config{}}
	healthtest.Want(t, "not tried", d.ruleFindings(), "")
	if d.rulesErr.Load() != nil {
		t.Error("the rules count as tried")
	}
	var none error
	d.rulesErr.Store(&none)
	healthtest.Want(t, "set", d.ruleFindings(), "")
	failed := errors.New("no nft")
	d.rulesErr.Store(&failed)
	healthtest.Want(t, "failed", d.ruleFindings(), health.MasqueradeFailed, "no nft", "nftables")
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
	healthtest.Want(t, "in force", d.guardFindings(), "")
	now := time.Unix(1_800_000_000, 0)
	healthtest.Want(t, "no broadcasts", d.broadcastFindings(0, now), "")
	healthtest.Want(t, "broadcasts", d.broadcastFindings(70, now), health.PodBroadcasts, "70 frames dropped", "--broadcast-limit")
	healthtest.Want(t, "broadcasts of long ago", d.broadcastFindings(70, now.Add(time.Hour)), "")
	d.guards.err = guard.ErrNoNFT
	healthtest.Want(t, "not requested", d.guardFindings(), health.HostGuardFailed, "nft", "nftables")
	e := guard.Entry{Port: guard.Port{Link: "vwefta", MAC: ether.Addr{2}}, Mode: api.GuardOff}
	if err := store.Put(e); err != nil {
		t.Fatal(err)
	}
	healthtest.Want(t, "an open port", d.guardFindings(), health.HostGuardFailed)
	e.Mode = api.GuardPods
	if err := store.Put(e); err != nil {
		t.Fatal(err)
	}
	healthtest.Want(t, "a bound port", d.guardFindings(), health.GuardFailed, "nft", "nftables")
	if err := store.Delete(e.Link); err != nil {
		t.Fatal(err)
	}
	d.settings.Guard = api.GuardPods
	healthtest.Want(t, "requested", d.guardFindings(), health.GuardFailed)
}
