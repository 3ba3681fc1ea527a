package ipam

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"weft/internal/peer"
	"weft/ipam/ring"
	"weft/ipam/store"
)

// handoverPause is how long Leave waits for the heir's word before it sends everything again.
const handoverPause = time.Second

// Leave gives all that this node owns to one other, the one with the least of those that can be reached, and waits for its
// word. Leases that still exist are dropped; dropped is how many. After that the node gives out nothing more, while Merge,
// State and Message go on. A node that knows no other has nothing to give and nobody to give it to: heir is zero.
//
// It returns ErrNoHeir, with nothing changed, where there are other owners and none can be reached. Where ctx ends before the
// heir has confirmed, or after 10 s, the space is the heir's all the same and the error says that it may not know yet.
func (a *Allocator) Leave(ctx context.Context) (heir peer.ID, dropped int, err error) {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	var gifts []*flight
	var messages [][]byte
	err = a.do(func() (err error) {
		if heir, err = a.heir(); err != nil {
			return err
		}
		dropped = len(a.leases.byAddr)
		gifts, messages, err = a.bequeath(heir)
		return err
	})
	if err != nil {
		return peer.ID{}, 0, err
	}
	for i, gift := range gifts {
		if err := a.handOver(ctx, gift, messages[i]); err != nil {
			return heir, dropped, err
		}
	}
	return heir, dropped, nil
}

// heir returns whom to give everything to.
func (a *Allocator) heir() (heir peer.ID, err error) {
	owners := a.owners()
	candidates := maps.Clone(owners)
	for id := range a.heard {
		candidates[id] += 0
	}
	for _, p := range a.pools {
		for _, v := range p.votes.States() {
			candidates[v.Node] += 0
		}
	}
	delete(candidates, a.cfg.Self)
	for _, id := range slices.SortedFunc(maps.Keys(candidates), peer.ID.Compare) {
		if a.cfg.Reachable(id) && (heir.IsZero() || candidates[id] < candidates[heir]) {
			heir = id
		}
	}
	if heir.IsZero() && !a.ownsAll() {
		names := []string{"the owners that this node has not heard of yet"}
		if len(owners) > 0 {
			names = nil
		}
		for id := range owners {
			names = append(names, a.name(id))
		}
		return peer.ID{}, fmt.Errorf("%w: none of %s can be reached", ErrNoHeir, list(names))
	}
	return heir, nil
}

// ownsAll reports whether there is nothing of any range that another node owns.
func (a *Allocator) ownsAll() bool {
	for _, p := range a.pools {
		if p.ring.Bootstrapped() && p.owned(a.cfg.Self) < p.ring.Size() {
			return false
		}
	}
	return true
}

// bequeath drops all leases, gives everything to heir and writes that, and returns what to send it.
func (a *Allocator) bequeath(heir peer.ID) (gifts []*flight, messages [][]byte, err error) {
	a.left = true
	defer func() { a.left = err == nil }()
	addrs := slices.Collect(maps.Keys(a.leases.byAddr))
	for _, addr := range addrs {
		p, offset, ok := a.poolOf(addr)
		if ok && p.space.Release(offset) == nil {
			a.leases.remove(addr)
		}
	}
	deltas := make([]*ring.Ring, len(a.pools))
	for i, p := range a.pools {
		if deltas[i], err = p.giveAll(heir); err != nil {
			a.broken = err // nothing is written: start again from there
			return nil, nil, err
		}
		p.adopt(&a.leases)
	}
	err = a.commit(func(tx store.Tx) error {
		for _, p := range a.pools {
			if err := p.saveRing(tx); err != nil {
				return err
			}
		}
		return deleteAll(tx, addrs)
	})
	if err != nil {
		return nil, nil, err
	}
	a.notify()
	for _, delta := range deltas {
		if delta.Len() == 0 {
			continue
		}
		a.broadcast(ringDeltas(delta))
		f := &flight{key: flightKey{cidr: delta.Range(), donor: heir}, id: a.rand.Uint64(), done: make(chan struct{})}
		m := unicast{kind: kindHandover, id: f.id, ring: delta.Append(nil)}
		gifts, messages = append(gifts, f), append(messages, m.encode())
		a.flights[f.key] = f
	}
	return gifts, messages, nil
}

// giveAll hands all of this node's tokens to heir, nobody if that is zero, and returns those that changed.
func (p *pool) giveAll(heir peer.ID) (delta *ring.Ring, err error) {
	p.report(true)
	starts := make(map[uint64]bool)
	for _, span := range p.ring.Owned(p.self) {
		if heir.IsZero() {
			break
		}
		part, err := p.ring.Grant(p.self, heir, span, p.free)
		if err != nil {
			return nil, err
		}
		for _, t := range part.Tokens() {
			starts[t.Start] = true
		}
	}
	return p.ring.Select(func(t ring.Token) bool { return starts[t.Start] }), nil
}

// handOver sends msg to the heir until it confirms.
func (a *Allocator) handOver(ctx context.Context, gift *flight, msg []byte) error {
	defer a.counts.wait()()
	defer a.giveUp(gift)
	heir := gift.key.donor
	for {
		if err := a.cfg.Gossip.Unicast(heir, msg); err != nil {
			a.cfg.Logger.Warn("ipam: heir not reached", "peer", heir, "err", err)
		}
		timer := time.NewTimer(handoverPause)
		select {
		case <-gift.done:
			timer.Stop()
			return nil
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("ipam: %s was given to node %s, which has not confirmed it: %w", gift.key.cidr, a.name(heir), context.Cause(ctx))
		}
	}
}
