package datapath

import (
	"context"
	"sync"
	"time"
)

// refused has the counts of a set of rules. They are at most dropsAge old, as reading them runs a program. Its methods may be called
// concurrently.
type refused struct {
	mu     sync.Mutex
	counts map[string]uint64 // guarded by mu, never changed; nil: not known
	at     time.Time         // guarded by mu
}

// latest returns the counts by reason; nil: not known. read returns those of now.
func (r *refused) latest(read func(context.Context) (map[string]uint64, error)) map[string]uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if time.Since(r.at) < dropsAge {
		return r.counts
	}
	ctx, cancel := context.WithTimeout(context.Background(), dropsAge)
	defer cancel()
	if counts, err := read(ctx); err == nil {
		r.counts, r.at = counts, time.Now()
	}
	return r.counts
}

// kernelRefused returns how many datagrams the filter of the kernel path has dropped, by reason; nil: there is none.
func (d *Datapath) kernelRefused() map[string]uint64 {
	var sums map[string]uint64
	for _, run := range d.kernelRuns() {
		for reason, n := range run.refused.latest(run.rules.FilterDrops) {
			if sums == nil {
				sums = map[string]uint64{}
			}
			sums[reason] += n
		}
	}
	return sums
}

// dropped returns how many packets of pods to ports of nodes were dropped; false: not known.
func (p *nodePorts) dropped() (uint64, bool) {
	p.mu.Lock()
	fw := p.fw
	p.mu.Unlock()
	if fw == nil {
		return 0, false
	}
	const all = ""
	n, known := p.refused.latest(func(ctx context.Context) (map[string]uint64, error) {
		n, err := fw.Dropped(ctx)
		return map[string]uint64{all: n}, err
	})[all]
	return n, known
}
