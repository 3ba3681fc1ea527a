package repairs_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"weft/internal/health"
	"weft/internal/health/healthtest"
	"weft/internal/hoststate"
	"weft/internal/repairs"
)

// TestFindings: repairs are a condition for some minutes, and what cannot be restored is one as long as that is so.
func TestFindings(t *testing.T) {
	var l repairs.Log
	find := func(at time.Time) []health.Finding { return l.Findings("weave", "weft0", at) }
	now := time.Now()
	healthtest.Want(t, "nothing happened", find(now), "")
	for range 3 {
		l.Add("up", "weft0 is down", now)
	}
	l.Add("address", "weave lacks the address 10.40.0.1/12", now)
	healthtest.Want(t, "repaired", find(now), health.BridgeRepaired, "4 times", "10.40.0.1/12; weft0 is down", "NetworkManager")
	for i := range 8 {
		l.Add("up", fmt.Sprintf("vweft%d is down", i), now)
	}
	healthtest.Want(t, "many", find(now), health.BridgeRepaired, "12 times", "vweft7 is down; vweft6 is down; vweft5 is down; vweft4 is down.")
	later := now.Add(10*time.Minute + 1)
	healthtest.Want(t, "long ago", find(later), "")
	l.SetFailed([]repairs.Failure{{What: "weave is down", Err: errors.New("no permission")}})
	healthtest.Want(t, "not repaired", find(later), health.BridgeBroken, "cannot restore it: no permission")
	l.SetFailed([]repairs.Failure{{What: "the setting net/ipv4/ip_forward is not 1", Setting: true, Err: errors.New("read-only")}})
	healthtest.Want(t, "a setting", find(later), health.HostSetting, "ip_forward", "read-only", "sysctl")
	l.SetFailed(nil)
	l.SetContested([]hoststate.Contested{
		{Key: hoststate.Key{Kind: hoststate.SetUp, Object: "weft0"}, Repairs: 9, Pause: 16 * time.Second}})
	healthtest.Want(t, "contested", find(later), health.RepairContested, "weft0 (up)", "9 times in a row", "waits 16s")
	l.SetContested(nil)
	l.SetMoved([]hoststate.Link{{Name: "vweft1", Master: "br1"}})
	healthtest.Want(t, "moved", find(later), health.PodPortMoved, "vweft1", "ip link set vweft1 master weave")
}
