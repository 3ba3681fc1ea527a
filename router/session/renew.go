package session

import "time"

// sweepEach is the interval at which all sessions are checked, so timers other than retries are up to a second late.
const sweepEach = time.Second

// maxConfirmations is the most keepalives, one a sweep, that are sent to a peer that does not use a new session yet.
const maxConfirmations = 5

// Deadline returns when to call Advance; the zero time means not before another method was called. An earlier call does
// no harm.
func (n *Node) Deadline() time.Time {
	at := n.sweepAt
	for _, r := range n.pending {
		if at.IsZero() || r.attempt.retryAt.Before(at) {
			at = r.attempt.retryAt
		}
	}
	return at
}

// scheduleSweep schedules a check of all sessions, if none is due yet.
func (n *Node) scheduleSweep(now time.Time) {
	if n.sweepAt.IsZero() {
		n.sweepAt = now.Add(sweepEach)
	}
}

// Advance does the work that is due at now: it sends initiations again that had no response, and renews, keeps alive or
// ends sessions.
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
		n.expireSessions(r, now)
		requested := now.Before(r.requestedUntil)
		switch {
		case r.current != nil:
			n.recordActivity(r, now)
			n.maintainSession(r, now)
		case requested:
			n.startHandshake(r, now)
		}
		if requested || r.current != nil || r.next != nil || r.previous != nil {
			n.scheduleSweep(now)
		}
	}
}

// retry sends the initiation of an attempt again, or cancels the attempt if no frame waits for it any more.
func (n *Node) retry(r *remote, now time.Time) {
	idle := r.current == nil || now.Sub(r.usedAt) >= requestTime
	if idle && now.After(r.requestedUntil) {
		n.cancelHandshake(r)
		return
	}
	n.sendInitiation(r, now)
}

// recordActivity records the datagrams of the current session since the last sweep. Datagrams from and to entropy ports keep it alive, but
// are no answers: handshakes, probes and frames to all peers need the path between the data ports.
func (n *Node) recordActivity(r *remote, now time.Time) {
	s := r.current
	used := s.used.Swap(false)
	if used {
		r.usedAt = now
	}
	received, heard, sent := s.received.Swap(false), s.heard.Swap(false), s.sent.Swap(false)
	if received {
		r.receivedAt = now
	}
	if heard {
		r.unansweredSince = time.Time{}
	}
	if sent {
		r.sentAt = now
		if used && !heard && r.unansweredSince.IsZero() { // a keepalive alone has no answer
			r.unansweredSince = now
		}
	}
}

// maintainSession ends the current session when it must not be used any more. Otherwise it begins a handshake when the
// session has to be renewed, and sends a keepalive when one is due.
func (n *Node) maintainSession(r *remote, now time.Time) {
	s, age := r.current, now.Sub(r.current.created)
	idle := now.Sub(r.usedAt)
	if age < 0 || age >= endAfter || idle >= idleAfter || due(r.endAt, now) || s.counters.Load() >= maxCounters {
		n.endSession(r, now)
		return
	}
	limit := rekeyAfter
	if !s.initiator {
		limit += rekeyLater
	}
	inUse := idle < 2*sweepEach
	old := inUse && (age >= limit || s.counters.Load() >= rekeyCounters)
	silent := inUse && !r.unansweredSince.IsZero() && now.Sub(r.unansweredSince) >= silenceAfter
	if (old || silent || due(r.renewAt, now)) && r.attempt == nil {
		r.renewAt = time.Time{}
		n.sendInitiation(r, now)
	}
	unconfirmed := s.initiator && !s.confirmed.Load() && r.confirmations < maxConfirmations
	if unconfirmed {
		r.confirmations++
	}
	quiet := now.Sub(r.sentAt)
	if unconfirmed || inUse && r.receivedAt.After(r.sentAt) && quiet >= answerAfter || quiet >= keepaliveEach {
		n.sendKeepalive(r, now)
	}
}

// due reports whether now is at or later; the zero time is never due.
func due(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// expireSessions removes the sessions of r that only open, after graceTime. The previous session stays while the
// current one is unconfirmed, as the peer may still send with it.
func (n *Node) expireSessions(r *remote, now time.Time) {
	if r.next != nil && !recent(r.next.created, graceTime, now) {
		n.table.remove(r.next)
		r.next = nil
	}
	unconfirmed := r.current != nil && !r.current.confirmed.Load() && recent(r.previous.start(), endAfter, now)
	if r.previous != nil && !unconfirmed && !recent(r.replacedAt, graceTime, now) {
		n.table.remove(r.previous)
		r.previous = nil
	}
}

// start returns when s was made, the zero time for nil.
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
