package leases

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"weft/internal/leases/holder"
	"weft/internal/peer"
	"weft/ipam"
)

// Bounds of the requests to other nodes for the addresses of orphans.
const (
	claimPause   = 30 * time.Second // between two requests for the same address to the same node
	claimTimeout = 3 * time.Second
	maxClaims    = 8 // at the same time
)

// claimOrphans claims the addresses of orphans that are not leased here, and records which it does not get.
func (m *Manager) claimOrphans(ctx context.Context) {
	wanted := m.unleased()
	last := m.survey.Load()
	var mu sync.Mutex
	refused := make(map[netip.Addr]error)
	for addr, err := range last.refused {
		if _, still := wanted[addr]; still {
			refused[addr] = err
		}
	}
	var group errgroup.Group
	group.SetLimit(maxClaims)
	for addr, h := range wanted {
		if !m.mayClaim(addr) {
			continue
		}
		group.Go(func() error {
			ctx, cancel := context.WithTimeout(ctx, claimTimeout)
			defer cancel()
			_, err := m.cfg.Allocator.Claim(ctx, h.String(), addr)
			mu.Lock()
			defer mu.Unlock()
			delete(refused, addr)
			if err != nil && !errors.Is(err, ipam.ErrLeft) {
				refused[addr] = err
			}
			return nil
		})
	}
	_ = group.Wait()
	if len(refused) == 0 && len(last.refused) == 0 {
		return
	}
	next := *last
	next.refused = refused
	m.survey.CompareAndSwap(last, &next) // else a later search has found more
}

// unleased returns the addresses of orphans and of the bridge that this node has not leased to them, in ranges that are divided: a node
// without peers must not divide a range for them.
func (m *Manager) unleased() map[netip.Addr]holder.Holder {
	wanted := make(map[netip.Addr]holder.Holder)
	divided := m.cfg.Allocator.ClusterIDs()
	for _, p := range m.survey.Load().ports {
		h := holder.ForOrphan(p.Name)
		for _, a := range p.Addrs {
			if _, ok := divided[m.rangeOf(a)]; ok && !leasedTo(m.lookup(h), a) {
				wanted[a] = h
			}
		}
	}
	for _, a := range m.survey.Load().bridge {
		if _, ok := divided[m.rangeOf(a)]; ok && !leasedTo(m.lookup(holder.ForHost()), a) {
			wanted[a] = holder.ForHost()
		}
	}
	return wanted
}

// claimedBefore is when an address was last claimed, and the node that owned it then.
type claimedBefore struct {
	at   time.Time
	from peer.ID
}

// mayClaim reports whether it is time to claim an address: the first time, long after the last time, or when another node owns
// it now. It records the claim.
func (m *Manager) mayClaim(addr netip.Addr) bool {
	owner, _ := m.cfg.Allocator.OwnerOf(addr)
	m.surveyMu.Lock()
	defer m.surveyMu.Unlock()
	now := time.Now()
	for a, last := range m.claims {
		if now.Sub(last.at) >= claimPause {
			delete(m.claims, a)
		}
	}
	if last, recently := m.claims[addr]; recently && last.from == owner {
		return false
	}
	if m.claims == nil {
		m.claims = make(map[netip.Addr]claimedBefore)
	}
	m.claims[addr] = claimedBefore{now, owner}
	return true
}
