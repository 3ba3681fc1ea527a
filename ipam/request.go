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

// answerPatience is how long a node waits for the reply of one other before it requests from the next.
const answerPatience = 1500 * time.Millisecond

// How often an operation looks whether a node that it waits for can be reached, and how long: it may stay alive without a route.
const (
	membershipPause    = 100 * time.Millisecond
	membershipPatience = 5 * time.Second
)

// search is what one operation has learned so far about where to find a free address.
type search struct {
	what  string              // what the operation failed to get, for errors
	addr  netip.Addr          // the address that it claims; the zero Addr: any
	tried map[peer.ID]outcome // by node
	// informed are the nodes that have already sent this node the tokens that it owns in their view.
	informed map[peer.ID]bool
	// awaiting is when it began to wait for a node that may become reachable; zero: it did not.
	awaiting time.Time
}

// wait is what an operation waits for: requests in flight, or any change where there are none.
type wait struct {
	reason   string // for errors
	changed  <-chan struct{}
	requests []*request
	failure  error // of the operation, where no node that it waits for becomes reachable in time; nil for other waits
}

// requestKey identifies a request in flight; operations that need the same share one request.
type requestKey struct {
	cidr     netip.Prefix
	donor    peer.ID // the node that the request is sent to; of a handover the new owner
	handover bool    // not a request: this node leaves
	claim    bool
	informed bool // the donor has already sent the tokens that this node owns in its view
	low, end uint64
}

// request is a request or a handover in flight.
type request struct {
	key  requestKey
	id   uint64
	done chan struct{} // closed when there is an outcome

	outcome outcome // set before done is closed
	holder  string  // likewise
}

func (a *Allocator) waitForChange(reason string) *wait {
	return &wait{reason: reason, changed: a.changed}
}

// requestSpace requests free addresses within in, the offsets of which are span: from a node with many, chosen at
// random with the free count as weight, or, where none is known to have any, from all nodes at once. Nodes that were
// tried are left out. It returns ErrExhausted when all have been tried. The caller holds mu.
func (a *Allocator) requestSpace(p *pool, in netip.Prefix, span ring.Span, s *search) (*wait, error) {
	var donors []peer.ID // without known free addresses
	var best peer.ID
	var score, known uint64
	for _, total := range p.ring.TotalsWithin(span) {
		known += total.Addresses
		_, tried := s.tried[total.Owner]
		if total.Owner == a.cfg.Self || tried || !a.cfg.Membership.Reachable(total.Owner) {
			continue
		}
		if total.Free == 0 {
			donors = append(donors, total.Owner)
			continue
		}
		// The weight is random, so that nodes that join at the same time do not all choose the same donor.
		if weight := 1 + total.Free/2 + a.rand.Uint64N(total.Free/2+1); weight > score {
			best, score = total.Owner, weight
		}
	}
	if !best.IsZero() {
		donors = []peer.ID{best}
	}
	w := &wait{reason: fmt.Sprintf("free addresses in %s", in)}
	for _, donor := range donors {
		w.requests = append(w.requests, a.request(p, requestKey{
			cidr: p.prefix, donor: donor, informed: s.informed[donor], low: span.Start, end: span.End,
		}))
	}
	switch {
	case len(w.requests) > 0:
		return w, nil
	case known < span.Len():
		return a.waitForChange(fmt.Sprintf("the owners of all of %s to become known", in)), nil
	}
	err := a.exhausted(p, in, span, s)
	for _, total := range p.ring.TotalsWithin(span) {
		if total.Owner != a.cfg.Self && a.awaited(total.Owner, s) {
			return &wait{failure: err}, nil
		}
	}
	return nil, err
}

// awaited reports whether a node is not reachable, and may be so within seconds, for which s has not waited yet.
func (a *Allocator) awaited(id peer.ID, s *search) bool {
	if a.cfg.Membership.Reachable(id) || !a.cfg.Membership.Awaited(id) {
		return false
	}
	if s.awaiting.IsZero() {
		s.awaiting = time.Now()
	}
	return time.Since(s.awaiting) < membershipPatience
}

// requestAddr requests the address at offset from its owner, another node. The caller holds mu.
func (a *Allocator) requestAddr(p *pool, offset uint64, s *search) (*wait, error) {
	addr := p.ring.Addr(offset)
	owner, known := p.ring.Owner(offset)
	if !known {
		return a.waitForChange(fmt.Sprintf("the owner of %s to become known", addr)), nil
	}
	switch outcome, tried := s.tried[owner]; {
	case tried && outcome == notOwner: // it granted the address to a node that this one does not know yet
		delete(s.tried, owner)
		return a.waitForChange(fmt.Sprintf("the owner of %s to become known", addr)), nil
	case tried && outcome == none:
		return nil, fmt.Errorf("%w: node %s does not grant %s", ErrExhausted, a.name(owner), addr)
	case tried, !a.cfg.Membership.Reachable(owner):
		err := &UnreachableError{Addr: addr, Owner: owner, Name: a.name(owner)}
		if a.awaited(owner, s) {
			return &wait{failure: err}, nil
		}
		return nil, err
	}
	key := requestKey{cidr: p.prefix, donor: owner, claim: true, low: offset, end: offset + 1}
	return &wait{
		reason:   fmt.Sprintf("node %s, which owns %s", a.name(owner), addr),
		requests: []*request{a.request(p, key)},
	}, nil
}

// request sends a request, or returns the one in flight with the same key. The caller holds mu.
func (a *Allocator) request(p *pool, key requestKey) *request {
	if r, ok := a.inFlight[key]; ok {
		return r
	}
	r := a.newRequest(key)
	m := unicast{
		kind: kindRequest, id: r.id, claim: key.claim, low: key.low, end: key.end, count: p.owned(a.cfg.Self),
		ring: p.noTokens().Append(nil),
	}
	if key.informed {
		m.count = math.MaxUint64 // more tokens of this node in the donor's view are old
	}
	a.out.unicastThen(key.donor, m.encode(), func(err error) {
		if err != nil {
			a.abandon(r)
		}
	})
	return r
}

// newRequest returns a new request in flight with an ID. The caller holds mu.
func (a *Allocator) newRequest(key requestKey) *request {
	r := &request{key: key, id: a.rand.Uint64(), done: make(chan struct{})}
	a.inFlight[key] = r
	return r
}

// complete ends r with an outcome. The caller holds mu.
func (a *Allocator) complete(r *request, o outcome, holder string) {
	if a.inFlight[r.key] != r {
		return
	}
	delete(a.inFlight, r.key)
	r.outcome, r.holder = o, holder
	close(r.done)
}

// abandon ends r without a reply.
func (a *Allocator) abandon(r *request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.complete(r, unanswered, "")
}

// handleReply merges the ring of a reply and completes the request that it answers. The caller holds mu.
func (a *Allocator) handleReply(from peer.ID, m *unicast) error {
	var err error
	if len(m.ring) > 0 {
		if _, err = a.mergeFrom(from, m); a.broken != nil {
			return err
		}
	}
	for _, r := range a.inFlight {
		if r.id == m.id && r.key.donor == from {
			if m.outcome == granted && !r.key.handover {
				a.counts.received.Add(1)
			}
			a.complete(r, m.outcome, m.holder)
		}
	}
	return err
}

// await waits for w, and records the outcomes in s. It returns nil when the operation should try again.
func (a *Allocator) await(ctx context.Context, w *wait, s *search) error {
	defer a.counts.startWaiting()()
	if len(w.requests) == 0 {
		var again <-chan time.Time // the membership does not wake waiters
		if w.failure != nil {
			again = time.After(membershipPause)
		}
		select {
		case <-w.changed: // never for nodes
			return nil
		case <-again:
			return nil
		case <-ctx.Done():
			return w.timeout(ctx, s)
		}
	}
	timer := time.NewTimer(answerPatience)
	defer timer.Stop()
	for _, r := range w.requests {
		select {
		case <-r.done:
		case <-timer.C:
			timer.Reset(0) // for the remaining requests as well
			a.abandon(r)
			<-r.done
		case <-ctx.Done():
			return w.timeout(ctx, s)
		}
		switch r.outcome {
		case granted:
			return nil
		case leased:
			return &LeasedError{s.addr, r.holder, a.name(r.key.donor)}
		default:
			s.record(r)
		}
	}
	return nil
}

func (w *wait) timeout(ctx context.Context, s *search) error {
	if w.failure != nil {
		return w.failure
	}
	return &timeoutError{s.what, w.reason, context.Cause(ctx)}
}

// record records the outcome of a request that granted nothing.
func (s *search) record(r *request) {
	if r.outcome == owning { // the donor may grant on the next request
		if s.informed == nil {
			s.informed = make(map[peer.ID]bool)
		}
		s.informed[r.key.donor] = true
		return
	}
	if s.tried == nil {
		s.tried = make(map[peer.ID]outcome)
	}
	s.tried[r.key.donor] = r.outcome
}
