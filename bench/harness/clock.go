package harness

import (
	"time"

	"weft/bench/load"
)

// clock estimates how long the run still takes.
type clock struct {
	guess   time.Duration            // of a load that has not run yet
	pending map[string]int           // samples to come, by load
	took    map[string]time.Duration // in all, by load
	count   map[string]int           // samples in took
}

// newClock returns the clock of a run with so many drivers.
func newClock(cfg Config, drivers int) clock {
	c := clock{
		guess:   time.Duration(cfg.Seconds+3) * time.Second,
		pending: map[string]int{}, took: map[string]time.Duration{}, count: map[string]int{},
	}
	for _, l := range cfg.Loads {
		c.pending[l.Name] = drivers * cfg.Rounds
	}
	return c
}

// done notes that a sample took so long; 0 for one that was left out.
func (c *clock) done(name string, took time.Duration) {
	c.pending[name]--
	if took > 0 {
		c.took[name] += took
		c.count[name]++
	}
}

// drop notes that a driver will not be measured.
func (c *clock) drop(loads []load.Load, rounds int) {
	for _, l := range loads {
		c.pending[l.Name] -= rounds
	}
}

// left returns the estimate, to the second.
func (c *clock) left() time.Duration {
	var sum time.Duration
	for name, n := range c.pending {
		each := c.guess
		if c.count[name] > 0 {
			each = c.took[name] / time.Duration(c.count[name])
		}
		sum += time.Duration(n) * each
	}
	return sum.Round(time.Second)
}
