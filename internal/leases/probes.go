package leases

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"weft/internal/leases/holder"
)

// probesPeriod is how often the leases for probes are looked at: one that was lost is replaced.
const probesPeriod = 10 * time.Second

// leaseProbes leases an address of each range for the probes of direct routing until ctx ends, or releases those of an earlier run. Probes
// have addresses of their own, as a policy for a pod must not stop them.
func (m *Manager) leaseProbes(ctx context.Context) {
	h := holder.ForProbes()
	if !m.cfg.Probes {
		if len(m.lookup(h)) > 0 {
			if err := m.cfg.Allocator.Release(h.String(), netip.Addr{}); err != nil {
				m.log.Warn("cannot release the addresses for the probes of direct routing", "err", err)
			}
		}
		return
	}
	tick := time.NewTicker(probesPeriod)
	defer tick.Stop()
	for {
		if _, err := m.cfg.Allocator.AllocateAll(ctx, h.String()); err != nil && !errors.Is(err, context.Canceled) {
			m.log.Warn("no address for the probes of direct routing", "err", Explain(err))
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
