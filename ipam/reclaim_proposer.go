package ipam

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"time"

	"weft/internal/peer"
	"weft/internal/signal"
	"weft/ipam/paxos"
	"weft/ipam/ring"
)

// errOutbid is returned where an acceptor has promised a higher ballot to another proposer.
var errOutbid = errors.New("ipam: another node reclaims as well")

const (
	resendPause = 700 * time.Millisecond // until a ballot is sent again to acceptors that have not answered
	outbidPause = 300 * time.Millisecond // the least time before a ballot above that of another proposer
)

// instanceKey identifies a reclaim instance: a Paxos instance that decides on the new owner of the addresses of a range
// that a dead node owns. The proposer and each acceptor exchange these messages:
//
//	proposer                     acceptor
//	prepare: a ballot ---------> promises to refuse lower ballots and later grants of the dead node
//	         <------------------ its state, and all that it knows of the dead node's tokens
//	accept: the new owner -----> accepts the new owner
//	         <------------------ its state
//	commit: the new tokens ----> ends its part
//
// Every other owner and member is an acceptor, and all of them have to answer (docs/adr/0015-reclaim.md).
type instanceKey struct {
	cidr netip.Prefix
	dead peer.ID
}

// reclaimProposer is the proposer's side of the reclaim instances on one node. At most one Reclaim runs at a time.
type reclaimProposer struct {
	running chan struct{} // constant, of capacity 1: holds a token while Reclaim runs

	// Guarded by the Allocator's mu.
	dead      map[peer.ID]bool          // the nodes that the running Reclaim was called with
	instances map[instanceKey]*instance // those with a ballot of this node
}

func newReclaimProposer() reclaimProposer {
	return reclaimProposer{
		running:   make(chan struct{}, 1),
		dead:      make(map[peer.ID]bool),
		instances: make(map[instanceKey]*instance),
	}
}

// instance is a ballot of this node and the answers to it. It is guarded by the Allocator's mu.
type instance struct {
	proposal *paxos.Proposal
	outbid   paxos.Ballot          // the highest ballot of another proposer that was promised meanwhile; zero for none
	aliveAt  peer.ID               // an acceptor that reaches the node that is reported dead; zero for none
	sentAt   map[peer.ID]time.Time // when the present phase of the ballot was last sent, by acceptor
	answered signal.Chan           // constant; set by an answer, and by a promise of this node to another proposer
}

// record records the state of an acceptor, and reports whether it has promised a higher ballot.
func (i *instance) record(from peer.ID, state paxos.Acceptor) (outbid bool) {
	if i.proposal.Record(from, state) || !i.proposal.Ballot.Less(state.Promised) {
		return false
	}
	if i.outbid.Less(state.Promised) {
		i.outbid = state.Promised
	}
	return true
}

// runInstance runs one ballot of an instance. It returns errOutbid where another proposer has a higher one.
func (a *Allocator) runInstance(ctx context.Context, key instanceKey) (r Reclaimed, err error) {
	r = Reclaimed{Dead: key.dead, Range: key.cidr}
	defer a.view(func() { delete(a.proposer.instances, key) })
	var needless bool
	err = a.do(func() (err error) {
		needless, err = a.newBallot(key)
		return err
	})
	if err != nil || needless {
		return r, err
	}
	if err := a.prepare(ctx, key); err != nil {
		return r, err
	}
	if r.NewOwner, err = a.accept(ctx, key); err != nil {
		return r, err
	}
	err = a.do(func() (err error) {
		r.Addresses, err = a.commit(key, r.NewOwner)
		return err
	})
	return r, err
}

// newBallot creates a ballot with the promise of this node's own acceptor, which is durable before the ballot is sent.
// It reports needless where the dead node is known to own nothing. The caller holds mu.
func (a *Allocator) newBallot(key instanceKey) (needless bool, err error) {
	p := a.pool(key.cidr)
	if p.owned(key.dead) == 0 && (p.complete() || !p.ring.Bootstrapped()) { // else other nodes may know tokens of it
		return true, nil
	}
	if a.cfg.Membership.Reachable(key.dead) {
		return false, fmt.Errorf("%w: node %s is reachable", ErrAlive, a.name(key.dead))
	}
	delete(a.acceptor.unfenced, key) // this node promises as every acceptor does
	a.acceptor.lastBallot[key] = time.Now()
	ballot := paxos.Ballot{Round: p.acceptorStates[key.dead].Promised.Round + 1, By: a.cfg.Self}
	a.proposer.instances[key] = &instance{
		proposal: paxos.NewProposal(ballot),
		sentAt:   make(map[peer.ID]time.Time),
		answered: signal.New(),
	}
	return false, a.updateAcceptor(key, func(own *paxos.Acceptor) { own.Promise(ballot) })
}

// prepare collects the promises of all acceptors.
func (a *Allocator) prepare(ctx context.Context, key instanceKey) error {
	return a.collect(ctx, key, peer.ID{}, (*paxos.Proposal).WithoutPromise)
}

// accept proposes the value that the promises allow, this node where they allow any, and collects the acceptances of
// all acceptors. That of this node's own acceptor is the first.
func (a *Allocator) accept(ctx context.Context, key instanceKey) (newOwner peer.ID, err error) {
	err = a.do(func() error {
		i := a.proposer.instances[key]
		clear(i.sentAt)
		newOwner = i.proposal.Value(a.cfg.Self)
		return a.updateAcceptor(key, func(own *paxos.Acceptor) { own.Accept(i.proposal.Ballot, newOwner) })
	})
	if err != nil {
		return newOwner, err
	}
	return newOwner, a.collect(ctx, key, newOwner, (*paxos.Proposal).WithoutAcceptance)
}

// collect sends the ballot to all acceptors until none of them is without an answer: in the prepare phase with a zero
// newOwner, else in the accept phase. Acceptors that become known by an answer are asked as well.
func (a *Allocator) collect(
	ctx context.Context, key instanceKey, newOwner peer.ID, without func(*paxos.Proposal, []peer.ID) []peer.ID,
) error {
	defer a.counts.startWaiting()()
	again := time.NewTimer(resendPause)
	defer again.Stop()
	for {
		var i *instance
		var missing []peer.ID
		err := a.do(func() (err error) {
			i = a.proposer.instances[key]
			missing = without(i.proposal, a.requiredAcceptors(a.pool(key.cidr)))
			return a.sendBallot(key, newOwner, missing)
		})
		if err != nil || len(missing) == 0 {
			return err
		}
		again.Reset(resendPause)
		select {
		case <-ctx.Done():
			a.view(func() { err = a.unresponsive(key, missing[0], true) })
			return err
		case <-again.C:
		case <-i.answered.C():
		}
	}
}

// sendBallot puts the ballot for those acceptors in the outbox that have not been sent it for resendPause, unless it
// cannot succeed any more. The caller holds mu.
func (a *Allocator) sendBallot(key instanceKey, newOwner peer.ID, missing []peer.ID) error {
	p, i := a.pool(key.cidr), a.proposer.instances[key]
	switch {
	case !i.aliveAt.IsZero():
		return fmt.Errorf("%w: node %s reaches node %s", ErrAlive, a.name(i.aliveAt), a.name(key.dead))
	case !i.outbid.IsZero(): // the next ballot is above it
		return errors.Join(errOutbid, a.updateAcceptor(key, func(own *paxos.Acceptor) { own.Promise(i.outbid) }))
	}
	m := reclaimMessage{
		kind: kindBallot, dead: key.dead, ballot: i.proposal.Ballot, newOwner: newOwner,
		ring: p.tokensWithin(p.spansOf(key.dead)).Append(nil),
	}
	for _, id := range missing {
		if !a.cfg.Membership.Reachable(id) {
			return a.unresponsive(key, id, false)
		}
		if now := time.Now(); now.Sub(i.sentAt[id]) >= resendPause {
			i.sentAt[id] = now
			a.out.unicast(id, m.encode())
		}
	}
	return nil
}

// unresponsive returns the error for an acceptor that does not answer. The caller holds mu.
func (a *Allocator) unresponsive(key instanceKey, acceptor peer.ID, reachable bool) error {
	return &UnresponsiveError{
		Node: acceptor, Name: a.name(acceptor), Reachable: reachable,
		Range: key.cidr, Dead: key.dead, DeadName: a.name(key.dead),
		Named: slices.SortedFunc(maps.Keys(a.proposer.dead), peer.ID.Compare),
	}
}

// requiredAcceptors returns the nodes that have to agree on a reclaim, beside this one: all owners, and all other
// members, because each of them may own addresses that no other node knows of yet; but not the dead ones. The caller
// holds mu.
func (a *Allocator) requiredAcceptors(p *pool) (ids []peer.ID) {
	all := make(map[peer.ID]bool)
	for _, total := range p.ring.Totals() {
		all[total.Owner] = true
	}
	for _, id := range a.cfg.Membership.Members() {
		all[id] = true
	}
	for id := range all {
		if id != a.cfg.Self && !a.proposer.dead[id] {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, peer.ID.Compare)
	return ids
}

// commit assigns the addresses of the dead node to the decided new owner, makes that durable, and sends it to all
// acceptors. The caller holds mu.
func (a *Allocator) commit(key instanceKey, newOwner peer.ID) (addresses uint64, err error) {
	p := a.pool(key.cidr)
	addresses = p.owned(key.dead)
	reclaiming := p.tokensInReclaim()
	delta := p.ring.Reclaim(key.dead, newOwner)
	if delta.Len() == 0 { // the outcome has become known meanwhile
		a.sendCommit(p, key, newOwner, delta)
		return 0, nil
	}
	a.cfg.Logger.Info("addresses reclaimed", "peer", key.dead, "owner", newOwner, "range", key.cidr.String(), "count", addresses)
	if err := errors.Join(a.applyRing(p), a.endDecided(p, reclaiming)); err != nil {
		return 0, err
	}
	a.counts.reclaims.Add(1)
	a.out.broadcast(ringDeltas(delta))
	if newOwner != a.cfg.Self {
		m := unicast{kind: kindHandover, id: a.rand.Uint64(), ring: delta.Append(nil)}
		a.out.unicast(newOwner, m.encode())
	}
	a.sendCommit(p, key, newOwner, delta)
	a.notifyWaiters()
	return addresses, nil
}

// sendCommit puts the outcome of an instance in the outbox, for all acceptors. The caller holds mu.
func (a *Allocator) sendCommit(p *pool, key instanceKey, newOwner peer.ID, delta *ring.Ring) {
	m := reclaimMessage{kind: kindCommit, dead: key.dead, newOwner: newOwner, ring: delta.Append(nil)}
	for _, id := range a.requiredAcceptors(p) {
		a.out.unicast(id, m.encode())
	}
}

// handleAnswer records an acceptor's answer to a ballot. The caller holds mu.
func (a *Allocator) handleAnswer(from peer.ID, m *reclaimMessage) error {
	incoming, err := ring.Decode(m.ring)
	if err != nil {
		return err
	}
	// First: the answer counts only once this node knows the tokens that the acceptor knew when it gave it.
	if err := a.mergeRing(incoming, fromInstance); err != nil {
		return err
	}
	i := a.proposer.instances[instanceKey{incoming.Range(), m.dead}]
	if i == nil {
		return nil
	}
	if m.alive {
		i.aliveAt = from
	} else {
		i.record(from, m.state)
	}
	i.answered.Set()
	return nil
}
