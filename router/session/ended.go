package session

import "time"

// A reply to an attempt may come after the attempt has ended: a retry or the peer's own handshake has replaced it, as when two nodes
// start at the same time. Such a reply is expected, once.

// lateTime is how long after its end a reply to an attempt is expected.
const lateTime = 10 * time.Second

// endedAttempts are the indexes of the attempts that ended last without a reply. The zero value is empty.
type endedAttempts struct {
	last [64]struct {
		index uint32
		at    time.Time
	}
	next int
}

// put records the end of an attempt; its index is not 0.
func (e *endedAttempts) put(index uint32, now time.Time) {
	e.last[e.next].index, e.last[e.next].at = index, now
	e.next = (e.next + 1) % len(e.last)
}

// take reports whether an attempt has ended lately, and forgets it.
func (e *endedAttempts) take(index uint32, now time.Time) bool {
	for i := range e.last {
		if a := &e.last[i]; index != 0 && a.index == index {
			late := recent(a.at, lateTime, now)
			a.index = 0
			return late
		}
	}
	return false
}

// replaceHandshake ends the handshake that this node began with r, if there is one, because another one takes its place.
func (n *Node) replaceHandshake(r *remote, now time.Time) {
	if r.attempt != nil {
		n.ended.put(r.attempt.index, now)
	}
	n.cancelHandshake(r)
}

// replyToNothing returns the error about a reply to an attempt that is not pending: ErrLate or ErrUnexpected.
func (n *Node) replyToNothing(index uint32, now time.Time) error {
	if n.ended.take(index, now) {
		return ErrLate
	}
	return ErrUnexpected
}
