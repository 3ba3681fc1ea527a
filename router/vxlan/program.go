package vxlan

import (
	"context"
	"time"
)

// program tells the device of the peers, and mends what others break, until ctx ends. Both set the filter, which takes
// as long as nftables likes: meanwhile the loop goes on to answer probes.
func (s *Controller) program(ctx context.Context) {
	tick := time.NewTicker(keepEvery)
	defer tick.Stop()
	var failed []Peer // to be tried again
	for {
		var err error
		select {
		case <-ctx.Done():
			return
		case peers := <-s.todo:
			failed, err = s.setPeers(ctx, peers)
		case <-tick.C:
			if failed != nil {
				failed, err = s.setPeers(ctx, failed)
			} else {
				err = s.cfg.Device.Ensure(ctx)
			}
		}
		if err != nil && ctx.Err() == nil {
			s.log.Warn("programming the kernel path", "err", err)
		}
	}
}

// setPeers tells the device of peers, and the loop of those that it reaches. It returns the peers if that fails.
func (s *Controller) setPeers(ctx context.Context, peers []Peer) (failed []Peer, err error) {
	reachable, err := s.cfg.Device.SetPeers(ctx, peers)
	if err != nil {
		return peers, err
	}
	select {
	case s.done <- reachable:
	case <-ctx.Done():
	}
	return nil, nil
}

// trafficMeter tells frames from probes in the device's counters. Both are read one after the other, so that a probe
// may be counted in the one and not yet in the other: the excess of frames over probes wavers, and only what is higher
// than it has ever been is traffic.
type trafficMeter struct{ most int64 }

// slack is by how much the excess may fall before it is taken for a counter that began anew, or errors that were never
// counted.
const slack = 64

// moved reports whether other frames than probes have passed since the last call.
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
