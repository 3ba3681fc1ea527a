package ipam

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"weft/internal/peer"
)

// Reclaimed is the result of a reclaim of one node's addresses of one range.
type Reclaimed struct {
	Dead      peer.ID
	Range     netip.Prefix
	NewOwner  peer.ID // zero where the node owned nothing
	Addresses uint64
}

// sameAs reports whether r and other are about the same node and range.
func (r Reclaimed) sameAs(other Reclaimed) bool {
	return r.Dead == other.Dead && r.Range == other.Range
}

// Reclaim assigns the addresses of nodes that are dead for good to a new owner. All other owners and all other members
// have to agree: each of them may hold the last grant of a dead node, and accepts no more of its grants once it has
// agreed. So all addresses without a live owner go to one new owner, whichever nodes reclaim, and however often: this
// node, unless another was faster. Members that are dead as well need not agree if they are named in the same call.
// Nodes that were named in an earlier call must be named again, because they may have come back.
//
// The errors are ErrAlive, *UnresponsiveError for a node that does not answer within 10 s or until ctx ends, and those
// of the store. An error loses nothing: the next call continues.
func (a *Allocator) Reclaim(ctx context.Context, dead ...peer.ID) (results []Reclaimed, err error) {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	if err := a.beginReclaim(ctx, dead); err != nil {
		return nil, err
	}
	defer a.finishReclaim()
	for range dead { // the new owner that an earlier instance decided on may be dead by now: then its addresses are reclaimed too
		var errs []error
		moved := false
		for _, id := range dead {
			rs, err := a.reclaimNode(ctx, id)
			for _, r := range rs {
				moved = moved || r.Addresses > 0 && slices.Contains(dead, r.NewOwner)
				if r.Addresses > 0 || !slices.ContainsFunc(results, r.sameAs) {
					results = append(results, r)
				}
			}
			errs = append(errs, err)
		}
		if err = errors.Join(errs...); err != nil || !moved {
			break
		}
	}
	return results, err
}

// beginReclaim waits until no other Reclaim runs, and records the dead nodes; finishReclaim has to follow.
func (a *Allocator) beginReclaim(ctx context.Context, dead []peer.ID) error {
	select {
	case a.proposer.running <- struct{}{}:
		a.view(func() {
			for _, id := range dead {
				a.proposer.dead[id] = true
			}
		})
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ipam: another reclaim is running on this node: try again: %w", context.Cause(ctx))
	}
}

func (a *Allocator) finishReclaim() {
	a.view(func() { clear(a.proposer.dead) })
	<-a.proposer.running
}

// reclaimNode reclaims the addresses of one node, of all ranges.
func (a *Allocator) reclaimNode(ctx context.Context, dead peer.ID) (results []Reclaimed, err error) {
	for _, cidr := range a.cfg.Ranges {
		r, err := a.decide(ctx, instanceKey{cidr.Masked(), dead})
		if err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}

// decide runs an instance with ever higher ballots until it is decided, or fails for another reason than a higher
// ballot.
func (a *Allocator) decide(ctx context.Context, key instanceKey) (Reclaimed, error) {
	for {
		r, err := a.runInstance(ctx, key)
		if !errors.Is(err, errOutbid) {
			return r, err
		}
		select {
		case <-ctx.Done():
			return r, fmt.Errorf("%w: %w", err, context.Cause(ctx))
		case <-time.After(outbidPause + a.jitter(2*outbidPause)):
		}
	}
}
