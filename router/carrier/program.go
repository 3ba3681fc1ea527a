package carrier

import (
	"context"
	"errors"
	"time"
)

// program sets the peers of the carrier, and restores what other programs changed, until ctx ends. It has a goroutine of
// its own because both set the filter, which may take long; meanwhile the loop still replies to probes.
func (c *Controller) program(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	var last []Peer
	again := false // the last ones are to be set again
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case last = <-c.todo:
			err = c.programPeers(ctx, last)
			again = err != nil
		case <-tick.C:
			if !again {
				err = c.cfg.Carrier.Ensure(ctx)
			}
			if again || errors.Is(err, ErrPeers) {
				err = c.programPeers(ctx, last)
				again = err != nil
			}
		}
		if err != nil && ctx.Err() == nil {
			c.log.Warn("cannot program the carrier", "err", err)
		}
	}
}

// programPeers sets the peers of the carrier, and sends those that it reaches to the loop.
func (c *Controller) programPeers(ctx context.Context, peers []Peer) error {
	reachable, err := c.cfg.Carrier.SetPeers(ctx, peers)
	if err != nil {
		return err
	}
	select {
	case c.done <- reachable:
	case <-ctx.Done():
	}
	return nil
}

// trafficMeter detects frames other than probes in the carrier's counters. Frames and probes are read one after the
// other, so one counter may include a probe that the other does not include yet. The excess of frames over probes
// therefore varies, and only an excess higher than ever before is traffic.
type trafficMeter struct{ most int64 }

// slack is how far the excess may fall before the meter assumes that a counter was reset, or that errors were not
// counted.
const slack = 64

// moved reports whether frames other than probes have passed since the last call.
func (t *trafficMeter) moved(frames, probes uint64) bool {
	excess := int64(frames - probes)
	if excess > t.most {
		t.most = excess
		return true
	}
	if excess < t.most-slack {
		t.most = excess
	}
	return false
}
