package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/internal/health"
	"weft/internal/peer"
	"weft/ipam/space"
)

// State summarizes what an Allocator is doing. The zero State is invalid.
type State string

// States of an Allocator.
const (
	Idle    State = "idle"    // the range is not divided, and no address has been requested
	Waiting State = "waiting" // see Status.WaitingFor
	Ready   State = "ready"   // addresses are allocated, as long as there are any
)

// Status is a snapshot of an Allocator for operators and metrics.
type Status struct {
	State      State
	WaitingFor string // a phrase; empty unless State is Waiting
	Leases     int    // addresses leased on this node
	Ranges     []RangeStatus
	Findings   []health.Finding // what is wrong
}

// RangeStatus is the division of one range.
type RangeStatus struct {
	CIDR   netip.Prefix
	Owners []Owner // sorted by ID; empty until the range is divided
}

// Owner is what one node owns of a range. The Addresses of all owners add up to the whole range, including addresses
// that are never allocated (network, broadcast); Free does not count those.
type Owner struct {
	ID        peer.ID
	Name      string
	Addresses uint64
	Free      uint64 // exact for this node, as last reported for others
	Reachable bool   // always true for this node
}

// Status returns a snapshot.
func (a *Allocator) Status() (status Status) {
	a.view(func() { status = a.status() })
	return status
}

// status is Status. The caller holds mu.
func (a *Allocator) status() Status {
	status := Status{State: Ready, Leases: len(a.leases.byAddr)}
	if a.broken != nil {
		status.Findings = append(status.Findings, health.Finding{
			Code: health.StateWriteFailed, Text: fmt.Sprintf("State could not be written: %v.", a.broken),
			Remedy: "Free space on the disk or repair it.",
		})
	}
	for _, p := range a.pools {
		status.Findings = append(status.Findings, p.events.findings(time.Now())...)
		status.Findings = append(status.Findings, a.unfinishedFindings(p)...)
		status.Ranges = append(status.Ranges, a.rangeStatus(p))
		if p.ready() || status.State == Waiting {
			continue
		}
		if status.State = Waiting; a.idle(p) {
			status.State = Idle
			continue
		}
		status.WaitingFor = a.waitingFor(p)
	}
	return status
}

func (a *Allocator) rangeStatus(p *pool) RangeStatus {
	rs := RangeStatus{CIDR: p.prefix}
	for _, total := range p.ring.Totals() {
		o := Owner{ID: total.Owner, Name: a.name(total.Owner), Addresses: total.Addresses, Free: total.Free}
		if o.ID == a.cfg.Self {
			o.Free = p.space.FreeIn(space.Span{Start: 0, End: p.ring.Size()})
			o.Reachable = true
		} else {
			o.Reachable = a.cfg.Membership.Reachable(o.ID)
		}
		rs.Owners = append(rs.Owners, o)
	}
	return rs
}

// unfinishedFindings returns a finding for each reclaim that was started and not finished. The caller holds mu.
func (a *Allocator) unfinishedFindings(p *pool) (findings []health.Finding) {
	for _, dead := range a.unfinishedReclaims(p) {
		findings = append(findings, health.Finding{
			Code: health.ReclaimUnfinished, Key: p.prefix.String() + " " + dead.String(),
			Text:   fmt.Sprintf("%s: a reclaim of the addresses of node %s was started and not finished.", p.prefix, a.name(dead)),
			Remedy: fmt.Sprintf("Run \"weft reclaim %s\" again, or start that node.", dead),
		})
	}
	return findings
}

// ready reports whether addresses of p are allocated, or would be if any node had one left.
func (p *pool) ready() bool {
	return p.ring.Bootstrapped() && (len(p.space.Owned()) > 0 || p.share.exhausted)
}

// idle reports whether the bootstrap of p is delayed until an address is requested.
func (a *Allocator) idle(p *pool) bool { return a.cfg.Lazy && !p.requested && !p.ring.Bootstrapped() }

// waitingFor returns what p lacks to be ready, as a phrase.
func (a *Allocator) waitingFor(p *pool) string {
	met, needed := p.bootstrap.Waiting()
	switch {
	case p.ring.Bootstrapped():
		return fmt.Sprintf("a share of %s from the other nodes", p.prefix)
	case needed == 0:
		return fmt.Sprintf("bootstrap nodes to divide %s: this node is an observer and has met none", p.prefix)
	case met < needed:
		return fmt.Sprintf("bootstrap nodes to divide %s: %d of %d have met", p.prefix, met, needed)
	}
	return fmt.Sprintf("the %d bootstrap nodes to agree on how to divide %s", met, p.prefix)
}

// Ready reports whether every range is divided and this node has a share of each, or knows that there is none to be
// had.
func (a *Allocator) Ready() (ready bool) {
	a.view(func() { ready = !slices.ContainsFunc(a.pools, func(p *pool) bool { return !p.ready() }) })
	return ready
}

// Prime starts the bootstrap of all ranges, even if it is lazy, and waits until Ready, for at most 10 s. The error
// contains what it was waiting for.
func (a *Allocator) Prime(ctx context.Context) error {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	s := search{what: "not ready"}
	for {
		var w *wait
		err := a.do(func() (err error) {
			for _, p := range a.pools {
				if w, err = a.ready(p); w != nil || err != nil {
					return err
				}
				if !p.ready() {
					a.wake.Set()
					w = a.waitForChange(a.waitingFor(p))
					return nil
				}
			}
			return nil
		})
		if err != nil || w == nil {
			return err
		}
		if err := a.await(ctx, w, &s); err != nil {
			return err
		}
	}
}
