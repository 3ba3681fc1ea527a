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
	"weft/ipam/paxos"
	"weft/ipam/ring"
	"weft/ipam/store"
)

// Errors of Reclaim.
var (
	// ErrAlive is wrapped where the node that was said to be gone is alive.
	ErrAlive = errors.New("ipam: that node is alive")
	// ErrSilent is wrapped where an owner whose word is needed does not answer.
	ErrSilent = errors.New("ipam: an owner does not answer")
)

// errOutbid is returned where another node's ballot is higher.
var errOutbid = errors.New("ipam: another node reclaims as well")

// Times of a decree.
const (
	canvassPause = 700 * time.Millisecond // until electors that have not answered are asked again
	outbidPause  = 300 * time.Millisecond // at least, before a ballot higher than somebody else's
)

// Reclaimed is what became of what a node owned of one range.
type Reclaimed struct {
	Dead      peer.ID
	Range     netip.Prefix
	NewOwner  peer.ID // zero where it owned nothing
	Addresses uint64
}

// reclaimKey names a decree: what becomes of what gone owns of a range.
type reclaimKey struct {
	cidr netip.Prefix
	gone peer.ID
}

// reclaim is a decree that this node has proposed.
type reclaim struct {
	choice *paxos.Choice
	outbid paxos.Ballot          // the highest that an elector has promised to somebody else
	alive  peer.ID               // who says that the node is alive; zero for nobody
	news   bool                  // an elector has answered since it was last looked at
	asked  map[peer.ID]time.Time // when electors were last asked what they are asked at present
}

// Reclaim takes what nodes own that are gone for good. All other owners, and all other members, have to agree, one by one:
// each of them may hold the last thing that a node gave away, and takes nothing more from it once it has agreed. So what
// nobody holds goes to one heir, this node unless another was faster, whoever asks for it and however often. Members that are
// gone as well need not agree, where they are named in the same call: who was said to be gone before may have come back.
//
// The errors are ErrAlive, ErrSilent for a member that does not answer within 10 s or until ctx ends, and those of the
// store. Nothing is lost by an error: asked again, it goes on from there.
func (a *Allocator) Reclaim(ctx context.Context, gone ...peer.ID) (results []Reclaimed, err error) {
	ctx, cancel := withPatience(ctx)
	defer cancel()
	if err := a.beginReclaim(ctx, gone...); err != nil {
		return nil, err
	}
	defer a.endReclaim()
	for range gone { // an heir that an earlier decree had found may be gone by now: then what it inherited is taken as well
		var errs []error
		moved := false
		for _, id := range gone {
			rs, err := a.reclaimAll(ctx, id)
			for _, r := range rs {
				moved = moved || r.Addresses > 0 && slices.Contains(gone, r.NewOwner)
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

// beginReclaim waits until this node proposes nothing else, and notes who is gone; endReclaim has to follow.
func (a *Allocator) beginReclaim(ctx context.Context, gone ...peer.ID) error {
	select {
	case a.proposing <- struct{}{}:
		a.view(func() {
			for _, id := range gone {
				a.gone[id] = true
			}
		})
		return nil
	case <-ctx.Done():
		return fmt.Errorf("ipam: another reclaim is under way here: try again: %w", context.Cause(ctx))
	}
}

func (a *Allocator) endReclaim() {
	a.view(func() { clear(a.gone) })
	<-a.proposing
}

// reclaimCommand is what to run where a node is gone as well. The caller holds mu.
func (a *Allocator) reclaimCommand(also peer.ID) string {
	command := "weft reclaim"
	for _, id := range slices.SortedFunc(maps.Keys(a.gone), peer.ID.Compare) {
		command += " " + id.String()
	}
	return command + " " + also.String()
}

// sameAs reports whether r and other are about what one node owned of one range.
func (r Reclaimed) sameAs(other Reclaimed) bool {
	return r.Dead == other.Dead && r.Range == other.Range
}

// reclaimAll takes what one node owns of all ranges.
func (a *Allocator) reclaimAll(ctx context.Context, gone peer.ID) (results []Reclaimed, err error) {
	for _, cidr := range a.cfg.Ranges {
		key := reclaimKey{cidr.Masked(), gone}
		for {
			var r Reclaimed
			if r, err = a.decide(ctx, key); !errors.Is(err, errOutbid) {
				if err == nil {
					results = append(results, r)
				}
				break
			}
			select {
			case <-ctx.Done():
				return results, fmt.Errorf("%w: %w", err, context.Cause(ctx))
			case <-time.After(outbidPause + a.jitter(2*outbidPause)):
			}
		}
		if err != nil {
			return results, err
		}
	}
	return results, nil
}

// decide takes one decree through one ballot.
func (a *Allocator) decide(ctx context.Context, key reclaimKey) (r Reclaimed, err error) {
	var done bool
	err = a.do(func() (err error) {
		done, err = a.nominate(key)
		return err
	})
	r = Reclaimed{Dead: key.gone, Range: key.cidr}
	if err != nil || done {
		return r, err
	}
	defer a.view(func() { delete(a.reclaims, key) })
	if err := a.canvass(ctx, key, peer.ID{}); err != nil {
		return r, err
	}
	err = a.do(func() error {
		choice := a.reclaims[key].choice
		clear(a.reclaims[key].asked)
		r.NewOwner = choice.Value(a.cfg.Self)
		return a.vote(key, func(own *paxos.Acceptor) { own.Accept(choice.Ballot, r.NewOwner) })
	})
	if err != nil {
		return r, err
	}
	if err := a.canvass(ctx, key, r.NewOwner); err != nil {
		return r, err
	}
	err = a.do(func() (err error) {
		r.Addresses, err = a.hand(key, r.NewOwner)
		return err
	})
	return r, err
}

// nominate begins a ballot with this node's own promise; done where the node owns nothing.
func (a *Allocator) nominate(key reclaimKey) (done bool, err error) {
	p := a.pool(key.cidr)
	if p.owned(key.gone) == 0 && (p.complete() || !p.ring.Bootstrapped()) { // else somebody may know more
		return true, nil
	}
	if a.cfg.Reachable(key.gone) {
		return false, fmt.Errorf("%w: node %s is reached", ErrAlive, a.name(key.gone))
	}
	own := p.decrees[key.gone]
	ballot := paxos.Ballot{Round: own.Promised.Round + 1, By: a.cfg.Self}
	a.reclaims[key] = &reclaim{choice: paxos.NewChoice(ballot), asked: make(map[peer.ID]time.Time)}
	return false, a.vote(key, func(own *paxos.Acceptor) { own.Promise(ballot) })
}

// vote changes this node's own part in a decree and writes it, before anybody hears of it.
func (a *Allocator) vote(key reclaimKey, f func(own *paxos.Acceptor)) error {
	p := a.pool(key.cidr)
	own := p.decrees[key.gone]
	before := own
	f(&own)
	if own != before {
		p.setDecree(key.gone, own)
		err := a.commit(func(tx store.Tx) error { // with what this node says that it knows
			return errors.Join(p.saveRing(tx), tx.SetDecree(key.cidr, key.gone, own.Append(nil)))
		})
		if err != nil {
			return err
		}
	}
	if r := a.reclaims[key]; r != nil && !r.choice.Hear(a.cfg.Self, own) && r.choice.Ballot.Less(own.Promised) {
		r.outbid, r.news = own.Promised, true
		a.notify()
	}
	return nil
}

// canvass asks all other owners for their promises, or where there is an heir for their acceptance, until it has them.
// An owner of whom one of them knows more than this node is asked as well.
func (a *Allocator) canvass(ctx context.Context, key reclaimKey, heir peer.ID) error {
	for {
		var missing []peer.ID
		var changed <-chan struct{}
		err := a.do(func() (err error) {
			changed = a.changed
			missing, err = a.putBallot(key, heir)
			return err
		})
		if err != nil || len(missing) == 0 {
			return err
		}
		if err := a.awaitAnswers(ctx, key, missing, changed); err != nil {
			return err
		}
	}
}

// putBallot sends the present ballot to those who have not answered it, now and then, and returns them.
func (a *Allocator) putBallot(key reclaimKey, heir peer.ID) (missing []peer.ID, err error) {
	p, r := a.pool(key.cidr), a.reclaims[key]
	switch {
	case !r.alive.IsZero():
		return nil, fmt.Errorf("%w: node %s says that it reaches %s", ErrAlive, a.name(r.alive), a.name(key.gone))
	case !r.outbid.IsZero(): // the next ballot is above it
		return nil, errors.Join(errOutbid, a.vote(key, func(own *paxos.Acceptor) { own.Promise(r.outbid) }))
	}
	missing = r.choice.Missing(a.electors(p), !heir.IsZero())
	m := ballotMessage{kind: kindBallot, gone: key.gone, ballot: r.choice.Ballot, heir: heir, ring: p.estate(key.gone, nil).Append(nil)}
	for _, id := range missing {
		if !a.cfg.Reachable(id) {
			return nil, fmt.Errorf("%w: node %s may own addresses of %s as well and is not reached: bring it back, or if it is gone for "+
				"good reclaim it too: `%s`", ErrSilent, a.name(id), key.cidr, a.reclaimCommand(id))
		}
		if now := a.cfg.Now(); now.Sub(r.asked[id]) >= canvassPause {
			r.asked[id] = now
			a.out = append(a.out, outgoing{to: id, msg: m.encode()})
		}
	}
	return missing, nil
}

// awaitAnswers waits until there is news, or it is time to ask again.
func (a *Allocator) awaitAnswers(ctx context.Context, key reclaimKey, missing []peer.ID, changed <-chan struct{}) error {
	defer a.counts.wait()()
	again := time.NewTimer(canvassPause)
	defer again.Stop()
	for {
		select {
		case <-ctx.Done():
			var command string
			a.view(func() { command = a.reclaimCommand(missing[0]) })
			return fmt.Errorf("%w: node %s has not answered on what becomes of %s: try again, or if it is gone for good reclaim it too: "+
				"`%s`", ErrSilent, a.name(missing[0]), a.name(key.gone), command)
		case <-again.C:
			return nil
		case <-changed:
		}
		var settled bool
		a.view(func() {
			changed = a.changed
			r := a.reclaims[key]
			settled = r == nil || !r.alive.IsZero() || !r.outbid.IsZero() || r.news
			if r != nil {
				r.news = false
			}
		})
		if settled {
			return nil
		}
	}
}

// electors returns those whose word is needed: all owners but this node and those that are gone; and all other members, as
// each of them may own what nobody else has heard of yet.
func (a *Allocator) electors(p *pool) (ids []peer.ID) {
	all := make(map[peer.ID]bool)
	for _, total := range p.ring.Totals() {
		all[total.Owner] = true
	}
	if a.cfg.Members != nil {
		for _, id := range a.cfg.Members() {
			all[id] = true
		}
	}
	for id := range all {
		if id != a.cfg.Self && !a.gone[id] {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, peer.ID.Compare)
	return ids
}

// hand gives what the node that is gone owned to the heir: all have agreed.
func (a *Allocator) hand(key reclaimKey, heir peer.ID) (addresses uint64, err error) {
	p := a.pool(key.cidr)
	addresses = p.owned(key.gone)
	estates := p.estates()
	delta := p.ring.Reclaim(key.gone, heir)
	defer func() {
		if err != nil {
			return
		}
		over := ballotMessage{kind: kindOver, gone: key.gone, heir: heir, ring: delta.Append(nil)}
		for _, id := range a.electors(p) {
			a.out = append(a.out, outgoing{to: id, msg: over.encode()})
		}
	}()
	if delta.Len() == 0 {
		return 0, nil // it has become known meanwhile
	}
	a.cfg.Logger.Info("ipam: space reclaimed", "peer", key.gone, "heir", heir, "range", key.cidr.String(), "count", addresses)
	if err := errors.Join(a.settle(p), a.endDecrees(p, estates)); err != nil {
		return 0, err
	}
	a.counts.reclaims.Add(1)
	a.broadcast(ringDeltas(delta))
	if heir != a.cfg.Self {
		m := unicast{kind: kindHandover, id: a.rand.Uint64(), ring: delta.Append(nil)}
		a.out = append(a.out, outgoing{to: heir, msg: m.encode()})
	}
	a.notify()
	return addresses, nil
}

// hearBallot answers a ballot: with this node's part in it, and all that it knows of what the node that is gone owns.
func (a *Allocator) hearBallot(from peer.ID, m *ballotMessage) error {
	incoming, err := ring.Decode(m.ring)
	if err != nil {
		return err
	}
	p := a.pool(incoming.Range())
	if p == nil {
		return fmt.Errorf("ipam: ballot on %s: %w", incoming.Range(), ring.ErrRange)
	}
	if err := a.mergeRing(incoming, decreed); err != nil {
		return err
	}
	answer := ballotMessage{kind: kindStand, gone: m.gone, ring: p.estate(m.gone, incoming).Append(nil)}
	if a.cfg.Reachable(m.gone) {
		answer.alive = true
	} else {
		key := reclaimKey{p.prefix, m.gone}
		delete(a.lifted, key)
		a.balloted[key] = a.cfg.Now()
		err := a.vote(key, func(own *paxos.Acceptor) {
			if m.heir.IsZero() {
				own.Promise(m.ballot)
			} else {
				own.Accept(m.ballot, m.heir)
			}
		})
		if err != nil {
			return err
		}
	}
	answer.stand = p.decrees[m.gone]
	a.out = append(a.out, outgoing{to: from, msg: answer.encode()})
	return nil
}

// hearOver takes the outcome of a decree and ends this node's part in it: what it knows of what gone owned, and is not the
// heir's now, is others'.
func (a *Allocator) hearOver(m *ballotMessage) error {
	r, err := ring.Decode(m.ring)
	if err != nil {
		return err
	}
	p := a.pool(r.Range())
	if p == nil {
		return fmt.Errorf("ipam: decree on %s: %w", r.Range(), ring.ErrRange)
	}
	// first: what is the heir's now is not to be taken from anybody
	if err := a.mergeRing(r, decreed); err != nil {
		return err
	}
	if own, known := p.decrees[m.gone]; !known || own.Value != m.heir {
		return nil
	}
	return a.endDecree(p, m.gone)
}

// hearStand takes an elector's answer to a ballot.
func (a *Allocator) hearStand(from peer.ID, m *ballotMessage) error {
	incoming, err := ring.Decode(m.ring)
	if err != nil {
		return err
	}
	r := a.reclaims[reclaimKey{incoming.Range(), m.gone}]
	// first: what it says is counted only once this node knows what the elector knew
	if err := a.mergeRing(incoming, decreed); err != nil {
		return err
	}
	if r == nil {
		return nil
	}
	switch {
	case m.alive:
		r.alive = from
	case !r.choice.Hear(from, m.stand) && r.choice.Ballot.Less(m.stand.Promised):
		r.outbid = m.stand.Promised
	}
	r.news = true
	a.notify()
	return nil
}
