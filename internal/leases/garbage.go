package leases

import (
	"context"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/hostnet"
	"weft/internal/leases/holder"
	"weft/ipam"
)

// garbage finds leases of attachments that no longer exist although nothing ended them: the namespace was deleted, or the host
// was restarted. Leases under a name that an operator chose are not among them: only the operator knows what they are for.
type garbage struct {
	missing map[holder.Holder]time.Time // when the pair of a holder was first missing
}

// collect returns the holders of leases that end at now: those without a pair for the time grace, and containers from before
// the host was booted, which never come back under their names. exists reports whether the host has an interface.
func (g *garbage) collect(leases []ipam.Lease, exists func(name string) bool, now, booted time.Time,
	grace time.Duration) (ended []holder.Holder) {
	missing := make(map[holder.Holder]time.Time)
	for _, l := range leases {
		h := holder.Parse(l.Holder)
		name, attached := h.HostLink()
		if _, done := missing[h]; !attached || done || exists(name) {
			continue
		}
		since, known := g.missing[h]
		if !known {
			since = now
		}
		missing[h] = since
		beforeBoot := (h.Kind == holder.Container || h.Kind == holder.Docker) && l.Since.Before(booted)
		if beforeBoot || now.Sub(since) >= grace && now.Sub(l.Since) >= grace {
			ended = append(ended, h)
		}
	}
	g.missing = missing
	return ended
}

// collectGarbage ends leases of attachments that no longer exist until ctx ends.
func (m *Manager) collectGarbage(ctx context.Context) {
	var g garbage
	var guards staleGuards
	booted := bootTime()
	tick := time.NewTicker(max(min(m.cfg.Grace/5, time.Minute), time.Second))
	defer tick.Stop()
	for {
		m.drainDeletions()
		for _, h := range g.collect(m.cfg.Allocator.Leases(), hostnet.LinkExists, time.Now(), booted, m.cfg.Grace) {
			if err := m.releaseIfLeased(h, netip.Addr{}); err != nil {
				m.log.Warn("cannot end the lease of an attachment that is gone", "holder", h, "err", err)
				continue
			}
			m.freed.Add(1)
			m.log.Info("ended a lease because its attachment is gone", "holder", h, "grace", m.cfg.Grace)
		}
		m.collectGuards(ctx, &guards)
		booted = time.Time{} // the leases from before the start have been checked; clocks may be set back later
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// drainDeletions ends the leases of containers that were deleted while this node's daemon was away.
func (m *Manager) drainDeletions() {
	n, err := m.cfg.Deletions.Drain(func(h holder.Holder) error { return m.releaseIfLeased(h, netip.Addr{}) })
	if err != nil {
		m.log.Warn("cannot end the leases of containers that were deleted while the daemon was away", "err", err)
	}
	if n > 0 {
		m.log.Info("ended the leases of containers that were deleted while the daemon was away", "containers", n)
	}
}

// bootMargin is how far the clock may have been off when the host was booted: younger leases wait for their grace.
const bootMargin = time.Minute

// bootTime returns when the host was booted, less a margin; the zero time where the kernel does not report it.
func bootTime() time.Time {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return time.Time{}
	}
	return time.Now().Add(-time.Duration(info.Uptime)*time.Second - bootMargin)
}
