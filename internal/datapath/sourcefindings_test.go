package datapath

import (
	"net/netip"
	"testing"
	"time"

	"weft/internal/health"
	"weft/internal/health/healthtest"
	"weft/internal/peer"
	"weft/internal/settings"
	"weft/router"
)

// named is a Membership that only has names.
type named struct{ Membership }

func (named) NodeName(peer.ID) string { return "b" }

func TestSourceFindings(t *testing.T) {
	now := time.Now()
	d := &Datapath{settings: &settings.Config{SourceCheck: settings.SourceCheckLog}, cfg: Config{Membership: named{}}}
	find := func(first, until time.Time) []health.Finding {
		f := router.ForeignSources{Frames: 7, Last: netip.MustParseAddr("10.32.0.9"), First: first, Until: until}
		return d.sourceFindings(router.Stats{Peers: []router.PeerStats{{ID: peer.ID{1}, Foreign: f}}}, now)
	}
	healthtest.Want(t, "for a moment", find(now.Add(-time.Second), now), "")
	healthtest.Want(t, "long ago", find(now.Add(-time.Hour), now.Add(-20*time.Minute)), "")
	healthtest.Want(t, "going on", find(now.Add(-time.Minute), now), health.ForeignSource, "Node b", "10.32.0.9", "delivered", "weft ip claim")
	d.settings.SourceCheck = settings.SourceCheckEnforce
	healthtest.Want(t, "dropped", find(now.Add(-time.Minute), now), health.ForeignSource, "are dropped")
	healthtest.Want(t, "nothing happened", d.sourceFindings(router.Stats{Peers: []router.PeerStats{{ID: peer.ID{1}}}}, now), "")
}
