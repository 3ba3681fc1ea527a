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
	tick         = 500 * time.Millisecond // how often, plus up to half, a founding that has not happened is taken further
	houseTicks   = 8                      // ticks between reports of free counts
	probePause   = 30 * time.Second       // how long an empty node waits after all have said that they have nothing
	gapPause     = 5 * time.Second        // how long a node waits for the rest of a ring of which it heard in parts
	fetchStagger = 200 * time.Millisecond // within which nodes that join together ask for their first share
)

// Run does what needs time of its own, until ctx ends: it takes part in the founding, asks for a first share where this node
// has none, and tells the others from time to time how much is free. It returns nil, or why the last of the state could not
// be written, after all that it started has ended. Call it once.
func (a *Allocator) Run(ctx context.Context) error {
	var fetches sync.WaitGroup
	defer fetches.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for ticks := 0; ; {
		select {
		case <-ctx.Done():
			return a.do(func() error { return a.keepHouse(false) })
		case <-timer.C:
			timer.Reset(tick + time.Duration(a.pace.Int64N(int64(tick/2))))
			ticks++
		case <-a.wake:
		}
		err := a.do(func() error {
			if err := a.proposeAll(); err != nil {
				return err
			}
			if ticks < houseTicks {
				return nil
			}
			ticks = 0
			return a.keepHouse(true)
		})
		if err != nil {
			a.cfg.Logger.Error("ipam: housekeeping failed", "err", err)
		}
		for _, cidr := range a.empty() {
			fetches.Go(func() { a.fetch(ctx, cidr) })
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

// keepHouse writes what was learnt of others and, if report, tells them what is free here. It checks the invariants.
func (a *Allocator) keepHouse(report bool) error {
	for _, p := range a.pools {
		if err := a.keepDecrees(p); err != nil {
			return err
		}
		var deltas [][]byte
		if report {
			deltas = ringDeltas(p.report(true))
		}
		if !p.stale && len(deltas) == 0 {
			continue
		}
		if err := a.commit(func(tx store.Tx) error { return p.saveRing(tx) }); err != nil {
			return err
		}
		a.broadcast(deltas)
	}
	return a.check()
}

// empty returns the ranges of which this node should ask for a share, and notes that it does.
func (a *Allocator) empty() (cidrs []netip.Prefix) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.cfg.Now()
	for _, p := range a.pools {
		recently := !p.probed.IsZero() && now.Sub(p.probed) < probePause
		if a.left || !p.ring.Bootstrapped() || len(p.space.Owned()) > 0 || p.fetching || recently {
			continue
		}
		if now.Sub(p.adopted) < gapPause && !p.complete() {
			continue // its share may be among what it has not heard of yet
		}
		p.fetching = true
		cidrs = append(cidrs, p.prefix)
	}
	return cidrs
}

// fetch asks for a first share of a range.
func (a *Allocator) fetch(ctx context.Context, cidr netip.Prefix) {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	select {
	case <-time.After(a.jitter(fetchStagger)):
	case <-ctx.Done():
	}
	s := search{what: fmt.Sprintf("no share of %s", cidr)}
	for {
		var w *wait
		err := a.do(func() (err error) {
			if p := a.pool(cidr); len(p.space.Owned()) == 0 && !a.left {
				w, err = a.seek(p, cidr, p.ring.Usable(), &s)
			}
			return err
		})
		if err == nil && w != nil {
			if err = a.await(ctx, w, &s); err == nil {
				continue
			}
		}
		a.fetched(cidr, err)
		return
	}
}

// fetched notes what came of a fetch.
func (a *Allocator) fetched(cidr netip.Prefix, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pool(cidr)
	p.fetching = false
	if err != nil {
		a.cfg.Logger.Warn("ipam: no share", "range", cidr.String(), "err", err)
	}
	if errors.Is(err, ErrExhausted) {
		p.probed = a.cfg.Now()
	}
	a.notify()
}
