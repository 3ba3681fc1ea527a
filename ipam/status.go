package ipam

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"weft/internal/peer"
	"weft/ipam/space"
)

// State is what an Allocator is doing, in one word. The zero State is invalid.
type State string

// States of an Allocator.
const (
	Idle    State = "idle"    // not founded, and nobody has asked for an address
	Waiting State = "waiting" // Status.WaitingFor says for what
	Ready   State = "ready"   // addresses are given out, as long as there are any
)

// Status is what a person or a metric may know of an Allocator.
type Status struct {
	State      State
	WaitingFor string // a phrase; empty unless State is Waiting
	Leases     int    // addresses leased on this node
	Ranges     []RangeStatus
	Warnings   []string // sentences, each with the mend
}

// RangeStatus is who owns what of one range.
type RangeStatus struct {
	CIDR   netip.Prefix
	Owners []Owner // sorted by ID; empty until the range is divided
}

// Owner is what one node owns of a range. The Addresses of all owners add up to the whole range, the addresses that are
// never given out (network, broadcast) included; Free does not count those.
type Owner struct {
	ID        peer.ID
	Name      string
	Addresses uint64
	Free      uint64 // of this node exact, of others as they last said
	Reachable bool   // always so for this node
}

// Status returns a snapshot.
func (a *Allocator) Status() (status Status) {
	a.view(func() { status = a.status() })
	return status
}

func (a *Allocator) status() Status {
	status := Status{State: Ready, Leases: len(a.leases.byAddr)}
	if a.broken != nil {
		status.Warnings = append(status.Warnings, fmt.Sprintf("state could not be written (%v): make room or mend the disk", a.broken))
	}
	for _, p := range a.pools {
		status.Warnings = append(status.Warnings, p.warnings...)
		status.Warnings = append(status.Warnings, a.unfinished(p)...)
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
			o.Reachable = a.cfg.Reachable(o.ID)
		}
		rs.Owners = append(rs.Owners, o)
	}
	return rs
}

// ready reports whether p gives out addresses, or would if any node had one left.
func (p *pool) ready() bool {
	return p.ring.Bootstrapped() && (len(p.space.Owned()) > 0 || !p.probed.IsZero())
}

// idle reports whether nothing is to be done about p as nobody has asked for it yet.
func (a *Allocator) idle(p *pool) bool { return a.cfg.Lazy && !p.wanted && !p.ring.Bootstrapped() }

// waitingFor is what p lacks to be ready.
func (a *Allocator) waitingFor(p *pool) string {
	met, needed := p.votes.Waiting()
	switch {
	case p.ring.Bootstrapped():
		return fmt.Sprintf("a share of %s from the other nodes", p.prefix)
	case needed == 0:
		return fmt.Sprintf("founding nodes to divide %s: this one is an observer and has met none", p.prefix)
	case met < needed:
		return fmt.Sprintf("founding nodes to divide %s: %d of %d have met", p.prefix, met, needed)
	}
	return fmt.Sprintf("the %d founding nodes to agree on how to divide %s", met, p.prefix)
}

// Ready reports whether every range is divided and this node has a share of each, or knows that there is none to be had.
func (a *Allocator) Ready() (ready bool) {
	a.view(func() { ready = !slices.ContainsFunc(a.pools, func(p *pool) bool { return !p.ready() }) })
	return ready
}

// Prime starts the founding where it has not happened, lazy or not, and waits until Ready, for at most 10 s. The error says
// what it was waiting for.
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
					a.poke()
					w = a.waitFor(a.waitingFor(p))
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
