package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"weft/ipam/store"
)

const (
	tick           = 500 * time.Millisecond // how often, plus up to half, a ballot of the bootstrap is started or repeated
	maintainTicks  = 8                      // ticks between reports of free counts
	exhaustedPause = 30 * time.Second       // how long a node without a share waits after all have replied that they have none
	silentPause    = 2 * time.Second        // the same, where not all have replied, the first time; then twice as long each time
	gapPause       = 5 * time.Second        // how long a node waits for the rest of a ring of which it has received a part
	shareStagger   = 200 * time.Millisecond // within which nodes that join together request their first share
)

// Run does the background work until ctx ends: it takes part in the bootstrap, requests a first share where this node
// has none, and reports the free counts of this node to the others from time to time. After all goroutines that it
// started have ended it returns nil, or the error of the last write of the state. Call it once.
func (a *Allocator) Run(ctx context.Context) error {
	var requests sync.WaitGroup
	defer requests.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ticks := 0; ; {
		select {
		case <-ctx.Done():
			return a.do(func() error { return a.maintain(false) })
		case <-timer.C:
			timer.Reset(tick + time.Duration(a.pace.Int64N(int64(tick/2))))
			ticks++
		case <-a.wake.C():
		}
		err := a.do(func() error {
			if err := a.proposeAll(); err != nil {
				return err
			}
			if ticks < maintainTicks {
				return nil
			}
			ticks = 0
			return a.maintain(true)
		})
		if err != nil {
			a.cfg.Logger.Error("maintenance failed", "err", err)
		}
		for _, cidr := range a.rangesWithoutShare() {
			requests.Go(func() { a.requestShare(ctx, cidr) })
		}
	}
}

func (a *Allocator) proposeAll() error {
	for _, p := range a.pools {
		if err := a.propose(p); err != nil {
			return err
		}
	}
	return nil
}

// maintain writes what was learned about other nodes and, if report, publishes the free counts of this node. It returns
// an error if an invariant is broken. The caller holds mu.
func (a *Allocator) maintain(report bool) error {
	for _, p := range a.pools {
		if err := a.maintainReclaims(p); err != nil {
			return err
		}
		var deltas [][]byte
		if report {
			deltas = ringDeltas(p.report(true))
		}
		if !p.unsaved && len(deltas) == 0 {
			continue
		}
		if err := a.update(func(tx store.Tx) error { return p.saveRing(tx) }); err != nil {
			return err
		}
		a.out.broadcast(deltas)
	}
	return a.check()
}

// rangesWithoutShare returns the ranges of which this node should request a share, and marks them as requested.
func (a *Allocator) rangesWithoutShare() (cidrs []netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := time.Now()
	for _, p := range a.pools {
		if a.left || !p.ring.Bootstrapped() || len(p.space.Owned()) > 0 || p.share.requesting || now.Before(p.share.due) {
			continue
		}
		if now.Sub(p.bootstrappedAt) < gapPause && !p.complete() {
			continue // its token may not have arrived yet
		}
		p.share.requesting = true
		cidrs = append(cidrs, p.prefix)
	}
	return cidrs
}

// requestShare requests a first share of a range.
func (a *Allocator) requestShare(ctx context.Context, cidr netip.Prefix) {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	select {
	case <-time.After(a.jitter(shareStagger)):
	case <-ctx.Done():
	}
	s := search{what: fmt.Sprintf("no share of %s", cidr)}
	for {
		var w *wait
		err := a.do(func() (err error) {
			if p := a.pool(cidr); len(p.space.Owned()) == 0 && !a.left {
				w, err = a.requestSpace(p, cidr, p.ring.Usable(), &s)
			}
			return err
		})
		if err == nil && w != nil {
			if err = a.await(ctx, w, &s); err == nil {
				continue
			}
		}
		a.recordShare(cidr, err)
		return
	}
}

// recordShare records the result of requestShare.
func (a *Allocator) recordShare(cidr netip.Prefix, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pool(cidr)
	p.share = p.share.after(err, time.Now())
	if err != nil && err.Error() != p.share.logged {
		p.share.logged = err.Error()
		a.cfg.Logger.Warn("no share of a range", "range", cidr.String(), "err", err)
	}
	a.notifyWaiters()
}

// after returns the state after a request that has ended with err, nil if the node got a share.
func (s firstShare) after(err error, now time.Time) firstShare {
	s.requesting = false
	e, ok := errors.AsType[*ExhaustedError](err)
	switch {
	case err == nil:
		return firstShare{exhausted: s.exhausted}
	case !ok:
		return s
	case len(e.Unreachable)+len(e.Silent) == 0:
		s.pause = exhaustedPause
	default:
		s.pause = min(max(silentPause, 2*s.pause), exhaustedPause)
	}
	s.exhausted, s.due = true, now.Add(s.pause)
	return s
}
