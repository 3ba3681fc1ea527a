package ipam

import (
	"context"
	"fmt"
	"math"
	"net/netip"
	"time"

	"weft/internal/peer"
	"weft/ipam/ring"
)

// answerPatience is how long a node waits for one other's answer before it goes on to the next.
const answerPatience = 1500 * time.Millisecond

// unanswered is the outcome of an ask that could not be sent or was not answered in time, beside those of a reply.
const unanswered = 0xff

// search is what one operation has learnt so far about where to find space.
type search struct {
	what  string           // what is not to be had, for errors
	tried map[peer.ID]byte // outcomes by node
	sure  map[peer.ID]bool // who has said what this node owns, which need not be said again
}

// wait is what an operation waits for: the asks in flight, or else any news.
type wait struct {
	reason  string // what is waited for, for errors
	changed <-chan struct{}
	flights []*flight
}

// flightKey says what is asked of whom; operations that ask the same share one flight.
type flightKey struct {
	cidr     netip.Prefix
	donor    peer.ID
	claim    bool
	sure     bool // the donor has said already what the asker owns by its view
	low, end uint64
}

// flight is an ask under way.
type flight struct {
	key  flightKey
	id   uint64
	done chan struct{} // closed when there is an outcome

	outcome byte   // set before done is closed
	holder  string // likewise
}

// isAsk tells asks from what Leave hands over, which is no part of a range that anybody named.
func (f *flight) isAsk() bool { return f.key.low < f.key.end }

func (a *Allocator) waitFor(reason string) *wait { return &wait{reason: reason, changed: a.changed} }

// seek asks for space within in, whose offsets are span: of those not tried yet the node with the most free, more or less, or,
// when none is known to have any, all of them at once. It returns ErrExhausted when all have been asked.
func (a *Allocator) seek(p *pool, in netip.Prefix, span ring.Span, s *search) (*wait, error) {
	var full []peer.ID
	var best peer.ID
	var score, known uint64
	for _, total := range p.ring.TotalsWithin(span) {
		known += total.Addresses
		_, tried := s.tried[total.Owner]
		if total.Owner == a.cfg.Self || tried || !a.cfg.Reachable(total.Owner) {
			continue
		}
		if total.Free == 0 {
			full = append(full, total.Owner)
			continue
		}
		// The weight is random, as otherwise all who join at one time ask the same node.
		if weight := 1 + total.Free/2 + a.rand.Uint64N(total.Free/2+1); weight > score {
			best, score = total.Owner, weight
		}
	}
	if !best.IsZero() {
		full = []peer.ID{best}
	}
	w := &wait{reason: fmt.Sprintf("space in %s", in)}
	for _, donor := range full {
		w.flights = append(w.flights, a.ask(p, flightKey{
			cidr: p.prefix, donor: donor, sure: s.sure[donor], low: span.Start, end: span.End,
		}))
	}
	switch {
	case len(w.flights) > 0:
		return w, nil
	case known < span.Len():
		return a.waitFor(fmt.Sprintf("news of who owns all of %s", in)), nil
	}
	return nil, a.exhausted(p, in, span, s)
}

// seekAddr asks the owner of offset, another node, for it.
func (a *Allocator) seekAddr(p *pool, offset uint64, s *search) (*wait, error) {
	addr := p.ring.Addr(offset)
	owner, known := p.ring.Owner(offset)
	if !known {
		return a.waitFor(fmt.Sprintf("news of who owns %s", addr)), nil
	}
	switch outcome, tried := s.tried[owner]; {
	case tried && outcome == notOwner: // it gave the address away, and this node has yet to hear to whom
		delete(s.tried, owner)
		return a.waitFor(fmt.Sprintf("news of who owns %s", addr)), nil
	case tried && outcome == none:
		return nil, fmt.Errorf("%w: node %s does not give %s away", ErrExhausted, a.name(owner), addr)
	case tried, !a.cfg.Reachable(owner):
		return nil, a.unreachable(addr, owner)
	}
	key := flightKey{cidr: p.prefix, donor: owner, claim: true, low: offset, end: offset + 1}
	return &wait{reason: fmt.Sprintf("node %s, which owns %s", a.name(owner), addr), flights: []*flight{a.ask(p, key)}}, nil
}

// ask puts out an ask, or joins one that is under way.
func (a *Allocator) ask(p *pool, key flightKey) *flight {
	if f, ok := a.flights[key]; ok {
		return f
	}
	f := &flight{key: key, id: a.rand.Uint64(), done: make(chan struct{})}
	a.flights[key] = f
	nothing := p.ring.Select(func(ring.Token) bool { return false })
	m := unicast{
		kind: kindAsk, id: f.id, claim: key.claim, low: key.low, end: key.end, count: p.owned(a.cfg.Self), ring: nothing.Append(nil),
	}
	if key.sure {
		m.count = math.MaxUint64 // what the donor believes beyond that is old
	}
	a.out = append(a.out, outgoing{to: key.donor, msg: m.encode(), sent: func(err error) {
		if err != nil {
			a.giveUp(f)
		}
	}})
	return f
}

// finish gives f its outcome. The caller holds mu.
func (a *Allocator) finish(f *flight, outcome byte, holder string) {
	if a.flights[f.key] != f {
		return
	}
	delete(a.flights, f.key)
	f.outcome, f.holder = outcome, holder
	close(f.done)
}

// giveUp ends f without an answer.
func (a *Allocator) giveUp(f *flight) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.finish(f, unanswered, "")
}

// await waits for w, and notes in s what came of it. It returns nil when it is worth while to look again.
func (a *Allocator) await(ctx context.Context, w *wait, s *search) error {
	defer a.counts.wait()()
	late := func() error {
		return fmt.Errorf("ipam: %s: waiting for %s: %w", s.what, w.reason, context.Cause(ctx))
	}
	if len(w.flights) == 0 {
		select {
		case <-w.changed:
			return nil
		case <-ctx.Done():
			return late()
		}
	}
	timer := time.NewTimer(answerPatience)
	defer timer.Stop()
	for _, f := range w.flights {
		select {
		case <-f.done:
		case <-timer.C:
			timer.Reset(0) // for the rest of the flights as well
			a.giveUp(f)
			<-f.done
		case <-ctx.Done():
			return late()
		}
		switch f.outcome {
		case granted:
			return nil
		case owning:
			if s.sure == nil {
				s.sure = make(map[peer.ID]bool)
			}
			s.sure[f.key.donor] = true
			continue
		case leased:
			return fmt.Errorf("%w: %s: %q on node %s holds the address", ErrLeased, s.what, f.holder, a.name(f.key.donor))
		}
		if s.tried == nil {
			s.tried = make(map[peer.ID]byte)
		}
		s.tried[f.key.donor] = f.outcome
	}
	return nil
}
