package ipam

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"weft/internal/peer"
	"weft/internal/plural"
	"weft/ipam/ring"
	"weft/ipam/store"
)

// handoverPause is how long Leave waits for the confirmation of the new owner before it sends the handover again.
const handoverPause = time.Second

// Leave hands all addresses of this node over to one other, the reachable node with the fewest, and waits for its
// confirmation. Leases that still exist are dropped; dropped is their number. After that the node allocates nothing
// more, while Merge, State and Message continue to work. Where no other node is known and this one owns everything,
// there is no new owner: newOwner is zero.
//
// It returns ErrNoNewOwner, with nothing changed, where there are other owners and none can be reached. Where ctx ends,
// or 10 s pass, before the new owner has confirmed, the addresses are handed over all the same, and the error reports
// that the new owner may not know it yet.
func (a *Allocator) Leave(ctx context.Context) (newOwner peer.ID, dropped int, err error) {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	var handovers []*handover
	err = a.do(func() (err error) {
		if newOwner, err = a.chooseNewOwner(); err != nil {
			return err
		}
		dropped = len(a.leases.byAddr)
		handovers, err = a.releaseAll(newOwner)
		return err
	})
	if err != nil {
		return peer.ID{}, 0, err
	}
	for _, h := range handovers {
		if err := a.sendHandover(ctx, h); err != nil {
			return newOwner, dropped, err
		}
	}
	return newOwner, dropped, nil
}

// handover is the message that hands over the tokens of one range.
type handover struct {
	request *request // done once the new owner has confirmed
	msg     []byte
}

// chooseNewOwner returns the node to hand everything over to. The caller holds mu.
func (a *Allocator) chooseNewOwner() (newOwner peer.ID, err error) {
	owners := a.otherOwners()
	candidates := maps.Clone(owners)
	for id := range a.senders {
		candidates[id] += 0
	}
	for _, p := range a.pools {
		for _, s := range p.bootstrap.States() {
			candidates[s.Node] += 0
		}
	}
	delete(candidates, a.cfg.Self)
	for _, id := range slices.SortedFunc(maps.Keys(candidates), peer.ID.Compare) {
		if a.cfg.Membership.Reachable(id) && (newOwner.IsZero() || candidates[id] < candidates[newOwner]) {
			newOwner = id
		}
	}
	if newOwner.IsZero() && !a.ownsAll() {
		names := []string{"the owners that this node does not know yet"}
		if len(owners) > 0 {
			names = nil
		}
		for id := range owners {
			names = append(names, a.name(id))
		}
		return peer.ID{}, fmt.Errorf("%w: none of %s can be reached", ErrNoNewOwner, plural.List(names))
	}
	return newOwner, nil
}

// ownsAll reports whether no other node owns a part of a range. The caller holds mu.
func (a *Allocator) ownsAll() bool {
	for _, p := range a.pools {
		if p.ring.Bootstrapped() && p.owned(a.cfg.Self) < p.ring.Size() {
			return false
		}
	}
	return true
}

// releaseAll drops all leases, assigns all of this node's tokens to newOwner, makes that durable, and returns the
// messages for newOwner. The caller holds mu.
func (a *Allocator) releaseAll(newOwner peer.ID) ([]*handover, error) {
	addrs := slices.Collect(maps.Keys(a.leases.byAddr))
	for _, addr := range addrs {
		p, offset, ok := a.poolOf(addr)
		if ok && p.space.Release(offset) == nil {
			a.leases.remove(addr)
		}
	}
	deltas := make([]*ring.Ring, len(a.pools))
	for i, p := range a.pools {
		var err error
		if deltas[i], err = p.grantAll(newOwner); err != nil {
			a.broken = err // nothing is written: the next operation loads the store again
			return nil, err
		}
		p.syncSpace(&a.leases)
	}
	err := a.update(func(tx store.Tx) error {
		for _, p := range a.pools {
			if err := p.saveRing(tx); err != nil {
				return err
			}
		}
		return deleteAll(tx, addrs)
	})
	if err != nil {
		return nil, err
	}
	a.left = true
	a.notifyWaiters()
	var handovers []*handover
	for _, delta := range deltas {
		if delta.Len() == 0 {
			continue
		}
		a.out.broadcast(ringDeltas(delta))
		r := a.newRequest(requestKey{cidr: delta.Range(), donor: newOwner, handover: true})
		m := unicast{kind: kindHandover, id: r.id, ring: delta.Append(nil)}
		handovers = append(handovers, &handover{request: r, msg: m.encode()})
	}
	return handovers, nil
}

// grantAll hands all of this node's tokens over to newOwner, none if that is zero, and returns those that changed.
func (p *pool) grantAll(newOwner peer.ID) (delta *ring.Ring, err error) {
	p.report(true)
	starts := make(map[uint64]bool)
	for _, span := range p.ring.Owned(p.self) {
		if newOwner.IsZero() {
			break
		}
		part, err := p.ring.Grant(p.self, newOwner, span, p.free)
		if err != nil {
			return nil, err
		}
		for _, t := range part.Tokens() {
			starts[t.Start] = true
		}
	}
	return p.ring.Select(func(t ring.Token) bool { return starts[t.Start] }), nil
}

// sendHandover sends a handover until the new owner confirms it.
func (a *Allocator) sendHandover(ctx context.Context, h *handover) error {
	defer a.counts.startWaiting()()
	defer a.abandon(h.request)
	newOwner := h.request.key.donor
	for {
		if err := a.cfg.Gossip.Unicast(newOwner, h.msg); err != nil {
			a.cfg.Logger.Warn("handover not sent", "peer", newOwner, "err", err)
		}
		timer := time.NewTimer(handoverPause)
		select {
		case <-h.request.done:
			timer.Stop()
			return nil
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("ipam: %s was handed over to node %s, which has not confirmed it: %w",
				h.request.key.cidr, a.name(newOwner), context.Cause(ctx))
		}
	}
}

// handleHandover takes over the tokens of a handover, and confirms them. The caller holds mu.
func (a *Allocator) handleHandover(from peer.ID, m *unicast) error {
	p, err := a.mergeFrom(from, m)
	if err != nil {
		return err
	}
	tokens, err := ring.Decode(m.ring)
	if err != nil {
		return err
	}
	for _, t := range tokens.Tokens() {
		if now, _ := p.ring.TokenAt(t.Start); t.Owner == a.cfg.Self && (now.Start != t.Start || now.Version < t.Version) {
			return fmt.Errorf("ipam: handover of node %s refused: its addresses are being reclaimed", a.name(from))
		}
	}
	reply := unicast{kind: kindReply, id: m.id, outcome: granted, ring: p.noTokens().Append(nil)}
	a.out.unicast(from, reply.encode())
	return nil
}
