package harness

import (
	"time"

	"weft/bench/load"
)

// clock estimates the remaining time of a run.
type clock struct {
	guess   time.Duration            // estimated duration of a load that has not run yet
	pending map[string]int           // remaining samples, by load
	took    map[string]time.Duration // total duration of the samples so far, by load
	count   map[string]int           // number of samples in took, by load
}

// newClock returns the clock of a run with the given number of drivers.
func newClock(cfg Config, drivers int) clock {
	c := clock{
		guess:   time.Duration(cfg.Seconds+3) * time.Second,
		pending: map[string]int{}, took: map[string]time.Duration{}, count: map[string]int{},
	}
	for _, l := range cfg.Loads {
		c.pending[l.Name] = drivers * cfg.Rounds * len(cfg.Settings)
	}
	return c
}

// done records the duration of a sample; 0 means that the sample was skipped.
func (c *clock) done(name string, took time.Duration) {
	c.pending[name]--
	if took > 0 {
		c.took[name] += took
		c.count[name]++
	}
}

// drop removes the samples of a driver that will not be measured.
func (c *clock) drop(loads []load.Load, rounds int) {
	for _, l := range loads {
		c.pending[l.Name] -= rounds
	}
}

// left returns the estimated remaining time, rounded to seconds.
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
