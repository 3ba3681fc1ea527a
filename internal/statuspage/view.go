package statuspage

import (
	"time"

	"weft/internal/api"
	"weft/internal/peer"
)

// view is the data of the templates, formatted. Each part of it belongs to a section of the page.
type view struct {
	Status   api.Status
	At       moment // of the snapshot
	Clock    string // the time of day of At, with its zone
	State    string // "ready" or "not ready"
	Missing  string // what a node that is not ready waits for
	Warnings warningsView
	Facts    []fact
	Peers    peersView
	Mesh     picture
	Ranges   []rangeView
	Waiting  string // why addresses cannot be allocated; empty if they can
	Pods     podsView
}

func newView(s Snapshot, r map[peer.ID]rate, now time.Time) view {
	v := view{
		Status: s.Status, At: newMoment(now, now), Clock: now.Format("15:04:05 MST"), State: "ready",
		Warnings: newWarnings(s.Status.Conditions, now), Facts: newFacts(s.Status, now), Peers: newPeersView(s, r),
		Waiting: s.Waiting, Pods: newPodsView(s, now),
	}
	if !s.Status.Ready {
		v.State, v.Missing = "not ready", s.Missing
	}
	v.Mesh = newPicture(s, v.Peers.Rows)
	for _, rng := range s.Ranges {
		v.Ranges = append(v.Ranges, newRangeView(rng))
	}
	return v
}
