package session

import "time"

// sweepEach is how often sessions are looked at: what depends on it is a second late at most.
const sweepEach = time.Second

// mostProofs is how many keepalives in a row are sent, one a sweep, for a peer that has not used a new session yet.
const mostProofs = 5

// Deadline returns when Advance is to be called, the zero time for not before another method was called. Calling it
// earlier does no harm.
func (n *Node) Deadline() time.Time {
	at := n.sweepAt
	for _, r := range n.waiting {
		if at.IsZero() || r.attempt.retryAt.Before(at) {
			at = r.attempt.retryAt
		}
	}
	return at
}

// schedule has the sessions looked at within a sweep.
func (n *Node) schedule(now time.Time) {
	if n.sweepAt.IsZero() {
		n.sweepAt = now.Add(sweepEach)
	}
}

// Advance does what is due at now: initiations that had no answer are sent again, sessions that have grown old are made
// anew, kept or given up.
func (n *Node) Advance(now time.Time) {
	sweep := !n.sweepAt.IsZero() && (!now.Before(n.sweepAt) || n.sweepAt.Sub(now) > sweepEach) // a clock may be set back
	if sweep {
		n.sweepAt = time.Time{}
	}
	for _, r := range n.sorted() {
		if a := r.attempt; a != nil && (!now.Before(a.retryAt) || now.Before(a.sentAt)) {
			n.retry(r, now)
		}
		if !sweep {
			continue
		}
		n.expire(r, now)
		wanted := now.Before(r.wantedUntil)
		switch {
		case r.current != nil:
			n.observe(r, now)
			n.renew(r, now)
		case wanted:
			n.pursue(r, now)
		}
		if wanted || r.current != nil || r.next != nil || r.previous != nil {
			n.schedule(now)
		}
	}
}

// retry sends the initiation of an attempt again, or gives the attempt up where nothing waits for it any more.
func (n *Node) retry(r *remote, now time.Time) {
	idle := r.current == nil || now.Sub(r.usedAt) >= wantedFor
	if idle && now.After(r.wantedUntil) {
		n.abandon(r)
		return
	}
	n.initiate(r, now)
}

// observe takes down what has happened on the current session since the last sweep.
func (n *Node) observe(r *remote, now time.Time) {
	s := r.current
	used := s.used.Swap(false)
	if used {
		r.usedAt = now
	}
	heard, spoke := s.heard.Swap(false), s.spoke.Swap(false)
	if heard {
		r.heardAt, r.unheardFrom = now, time.Time{}
	}
	if spoke {
		r.spokeAt = now
		if used && !heard && r.unheardFrom.IsZero() { // a keepalive has no answer
			r.unheardFrom = now
		}
	}
}

// renew begins a handshake where the current session needs to be followed by another, ends the session where it must
// not be used any more, and otherwise keeps it, if there is something to keep.
func (n *Node) renew(r *remote, now time.Time) {
	s, age := r.current, now.Sub(r.current.created)
	idle := now.Sub(r.usedAt)
	if age < 0 || age >= endAfter || idle >= idleAfter || due(r.endAt, now) || s.counters.Load() >= maxCounters {
		n.end(r, now)
		return
	}
	limit := rekeyAfter
	if !s.initiator {
		limit += rekeyLater
	}
	inUse := idle < 2*sweepEach
	old := inUse && (age >= limit || s.counters.Load() >= rekeyCounters)
	silent := inUse && !r.unheardFrom.IsZero() && now.Sub(r.unheardFrom) >= silenceAfter
	if (old || silent || due(r.renewAt, now)) && r.attempt == nil {
		r.renewAt = time.Time{}
		n.initiate(r, now)
	}
	unproven := s.initiator && !s.confirmed.Load() && r.proofs < mostProofs
	if unproven {
		r.proofs++
	}
	quiet := now.Sub(r.spokeAt)
	if unproven || inUse && r.heardAt.After(r.spokeAt) && quiet >= answerAfter || quiet >= keepaliveEach {
		n.keepalive(r, now)
	}
}

// due reports whether a time has come; the zero time never does.
func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// expire forgets the sessions of r that only open, once they are of no more use. One that was followed by a session of
// which the peer has not shown yet that it has it stays, as the peer may still send by it.
func (n *Node) expire(r *remote, now time.Time) {
	if r.next != nil && !recent(r.next.created, graceTime, now) {
		n.table.remove(r.next)
		r.next = nil
	}
	unproven := r.current != nil && !r.current.confirmed.Load() && recent(r.previous.start(), endAfter, now)
	if r.previous != nil && !unproven && !recent(r.switchedAt, graceTime, now) {
		n.table.remove(r.previous)
		r.previous = nil
	}
}

// start returns when s was made; the zero time for none.
func (s *Session) start() time.Time {
	if s == nil {
		return time.Time{}
	}
	return s.created
}

// recent reports whether at is less than d before now, and not after it.
func recent(at time.Time, d time.Duration, now time.Time) bool {
	age := now.Sub(at)
	return age >= 0 && age < d
}
