package vxlan

import "time"

// Pace bounds how often a node follows the others to another VNI, as each change makes the device again, and frames of all peers take
// userspace meanwhile. Nodes that start at once, or networks that meet, agree after few changes. A member that makes up others, or the
// only other member, could change the result all the time.
type Pace struct {
	changes int // since the last long time without any
	last    time.Time
}

// Limits of a Pace.
const (
	FreeChanges  = 3                // changes without a pause
	LongestPause = 5 * time.Minute  // the longest pause
	CalmTime     = 15 * time.Minute // without a change: the next ones have no pause
)

// Wait returns how long the next change has to wait; 0: not at all.
func (p *Pace) Wait(now time.Time) time.Duration {
	if p.changes < FreeChanges || now.Sub(p.last) >= CalmTime {
		return 0
	}
	pause := min(time.Second<<min(p.changes-FreeChanges, 16), LongestPause)
	return max(0, pause-now.Sub(p.last))
}

// Changed records a change.
func (p *Pace) Changed(now time.Time) {
	if now.Sub(p.last) >= CalmTime {
		p.changes = 0
	}
	p.changes, p.last = p.changes+1, now
}
