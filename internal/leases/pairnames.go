package leases

import (
	"context"
	"slices"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/hostnet"
	"weft/internal/hostwatch"
	"weft/internal/leases/holder"
)

// The lease of an attachment outlasts its interfaces, so that it has its address again when it comes back. Its names must not be answered
// meanwhile: they are withdrawn when its pair is gone, and restored when the pair exists again.

// How often the pairs of names are looked for: after changes of links, but not more often than pairPause, and periodically, as the kernel
// may not report changes.
const (
	pairPause      = 500 * time.Millisecond
	pairPeriod     = 15 * time.Second
	pairPeriodOnly = 2 * time.Second // where the kernel reports none
)

// pairNames decides which names are withdrawn and restored. Its zero value is ready.
type pairNames struct {
	// seen are the holders under a name that an operator chose with a pair: others of these never had one, and keep their names.
	seen map[holder.Holder]bool
}

// changes returns the holders with names that end, as their pair is gone, and those with names that come back with it. exists reports
// whether the host has an interface.
func (p *pairNames) changes(held []HeldName, exists func(name string) bool) (gone, back []holder.Holder) {
	seen, there := map[holder.Holder]bool{}, map[holder.Holder]bool{}
	for _, n := range held {
		h := n.Holder
		found, looked := there[h]
		if !looked {
			found = slices.ContainsFunc(h.PossibleLinks(), exists)
			there[h] = found
		}
		_, attached := h.HostLink()
		if !attached && (found || p.seen[h]) {
			seen[h] = true
		}
		switch {
		case found && n.Withdrawn && !slices.Contains(back, h):
			back = append(back, h)
		case !found && !n.Withdrawn && (attached || p.seen[h]) && !slices.Contains(gone, h):
			gone = append(gone, h)
		}
	}
	p.seen = seen
	return gone, back
}

// followPairs withdraws and restores the names of attachments until ctx ends.
func (m *Manager) followPairs(ctx context.Context) {
	var group errgroup.Group
	period, changed := pairPeriodOnly, (<-chan struct{})(nil)
	if w, err := hostwatch.Open(hostwatch.Links); err != nil {
		m.log.Info("names of pods that are gone are looked for periodically only", "err", err)
	} else {
		period, changed = pairPeriod, w.Changed()
		group.Go(func() error {
			if err := w.Run(ctx); err != nil {
				m.log.Warn("names of pods that are gone are looked for periodically only", "err", err)
			}
			return nil
		})
	}
	var p pairNames
	for ctx.Err() == nil {
		m.followPairsOnce(&p, hostnet.LinkExists)
		select {
		case <-ctx.Done():
		case <-changed:
		case <-time.After(period):
		}
		select {
		case <-ctx.Done():
		case <-time.After(pairPause): // changes come in bursts
		}
	}
	_ = group.Wait()
}

// followPairsOnce is one look of followPairs.
func (m *Manager) followPairsOnce(p *pairNames, exists func(name string) bool) {
	gone, back := p.changes(m.cfg.Names.Held(), exists)
	for _, h := range gone {
		m.cfg.Names.Withdraw(h)
		if slices.ContainsFunc(h.PossibleLinks(), exists) { // made meanwhile
			back = append(back, h)
			continue
		}
		m.log.Info("the names of an attachment are not answered, because its interfaces are gone", "holder", h)
	}
	for _, h := range back {
		if err := m.cfg.Names.Restore(h); err != nil {
			m.log.Warn("cannot restore the names of an attachment", "holder", h, "err", err)
			continue
		}
		m.log.Info("the names of an attachment are answered again", "holder", h)
	}
}
