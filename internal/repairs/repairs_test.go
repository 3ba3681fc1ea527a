package repairs_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"weft/internal/health"
	"weft/internal/hoststate"
	"weft/internal/repairs"
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

// TestFindings: repairs are a condition for some minutes, and what cannot be restored is one as long as that is so.
func TestFindings(t *testing.T) {
	var l repairs.Log
	find := func(at time.Time) []health.Finding { return l.Findings("weave", "weft0", at) }
	now := time.Now()
	wantFinding(t, "nothing happened", find(now), "")
	for range 3 {
		l.Add("up", "weft0 is down", now)
	}
	l.Add("address", "weave lacks the address 10.40.0.1/12", now)
	wantFinding(t, "repaired", find(now), health.BridgeRepaired, "4 times", "10.40.0.1/12; weft0 is down", "NetworkManager")
	for i := range 8 {
		l.Add("up", fmt.Sprintf("vweft%d is down", i), now)
	}
	wantFinding(t, "many", find(now), health.BridgeRepaired, "12 times", "vweft7 is down; vweft6 is down; vweft5 is down; vweft4 is down.")
	later := now.Add(10*time.Minute + 1)
	wantFinding(t, "long ago", find(later), "")
	l.SetFailed([]repairs.Failure{{What: "weave is down", Err: errors.New("no permission")}})
	wantFinding(t, "not repaired", find(later), health.BridgeBroken, "cannot restore it: no permission")
	l.SetFailed([]repairs.Failure{{What: "the setting net/ipv4/ip_forward is not 1", Setting: true, Err: errors.New("read-only")}})
	wantFinding(t, "a setting", find(later), health.HostSetting, "ip_forward", "read-only", "sysctl")
	l.SetFailed(nil)
	l.SetContested([]hoststate.Contested{
		{Key: hoststate.Key{Kind: hoststate.SetUp, Object: "weft0"}, Repairs: 9, Pause: 16 * time.Second}})
	wantFinding(t, "contested", find(later), health.RepairContested, "weft0 (up)", "9 times in a row", "waits 16s")
	l.SetContested(nil)
	l.SetMoved([]hoststate.Link{{Name: "vweft1", Master: "br1"}})
	wantFinding(t, "moved", find(later), health.PodPortMoved, "vweft1", "ip link set vweft1 master weave")
}
