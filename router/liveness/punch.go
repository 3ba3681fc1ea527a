package liveness

import (
	"time"

	"weft/internal/peer"
)

const (
	// punchInterval is the shortest time between two hole punches of one pair of peers.
	punchInterval = 5 * time.Second
	// maxPairs bounds the pairs that a Coordinator remembers. When a pair beyond it comes, all are forgotten.
	maxPairs = 1024
)

// Coordinator decides when a relay starts a hole punch between two peers that it relays for. The zero Coordinator is
// ready for use. Its methods belong to one goroutine at a time.
type Coordinator struct {
	started map[pair]time.Time
}

// pair is two peers, the lower ID first.
type pair [2]peer.ID

// Start reports whether a hole punch between a and b, in either order, may start now, and if so remembers it.
func (c *Coordinator) Start(a, b peer.ID, now time.Time) bool {
	p := pair{a, b}
	if a.Compare(b) > 0 {
		p = pair{b, a}
	}
	if now.Sub(c.started[p]) < punchInterval {
		return false
	}
	if c.started == nil || len(c.started) > maxPairs {
		c.started = map[pair]time.Time{}
	}
	c.started[p] = now
	return true
}
