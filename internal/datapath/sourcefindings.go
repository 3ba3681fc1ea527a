package datapath

import (
	"fmt"
	"time"

	"weft/internal/health"
	"weft/internal/plural"
	"weft/internal/settings"
	"weft/router"
)

// Times of the condition about foreign source addresses.
const (
	// foreignFor is how long the frames must go on: for a moment after an address was handed over, this node does not know its new
	// owner.
	foreignFor = 10 * time.Second
	// foreignReported is how long they remain a condition.
	foreignReported = 10 * time.Minute
)

// sourceFindings reports peers that send frames with source addresses that another node gives out.
func (d *Datapath) sourceFindings(stats router.Stats, now time.Time) (findings []health.Finding) {
	for _, p := range stats.Peers {
		f := p.Foreign
		if f.Frames == 0 || f.Until.Sub(f.First) < foreignFor || now.Sub(f.Until) >= foreignReported {
			continue
		}
		result := "They are delivered, because --source-check is log."
		if d.settings.SourceCheck == settings.SourceCheckEnforce {
			result = "They are dropped."
		}
		findings = append(findings, health.Finding{
			Code: health.ForeignSource, Key: p.ID.String(),
			Text: fmt.Sprintf("Node %s sends frames with source addresses that another node gives out, such as %s (%s). %s",
				d.cfg.Membership.NodeName(p.ID), f.Last, plural.Count(f.Frames, "frame"), result),
			Remedy: fmt.Sprintf("Find the pod with %s on that node. If it has the address on purpose, as with VRRP, run \"weft ip claim\" for "+
				"it there, or use an address outside the range. If not, the pod or the node may be taken over: disconnect it.", f.Last),
		})
	}
	return findings
}
