// Package codel decides when the senders of a queue shall slow down: CoDel, RFC 8289.
//
// A queue that is empty from time to time only levels bursts. One that keeps each packet for long adds delay and carries no more: the
// senders have more in flight than the path needs. CoDel sees the difference in the least time that any packet has waited in an interval.
package codel

import (
	"math"
	"time"
)

// Queue is the state of one queue. Make it with New. One goroutine owns it.
type Queue struct {
	target, interval time.Duration

	above    time.Time     // since when no wait has been short; zero: the latest one was
	dropping bool          // while the queue stands
	next     time.Time     // when to signal again while dropping
	pause    time.Duration // of the first signal to the second: an interval
	count    int           // signals since dropping began, and before if it went on
	before   int           // count when dropping began
}

// New returns the state of an empty queue. Packets may always wait for target, and longer during an interval.
func New(target, interval time.Duration) *Queue { return &Queue{target: target, interval: interval} }

// Signal is called for each packet that leaves the queue, with the time that it has waited. It reports whether to drop it, or to mark it
// as having met congestion. roundTrip is that of the sender without the queue, 0 if unknown: a sender halves what it has in flight, so
// a queue of a quarter of its round trip is no waste, and it takes a round trip to react.
func (q *Queue) Signal(waited, roundTrip time.Duration, now time.Time) bool {
	interval := q.interval + roundTrip
	switch {
	case waited < q.target+roundTrip/4:
		q.above, q.dropping = time.Time{}, false
		return false
	case q.above.IsZero():
		q.above = now
		return false
	case now.Sub(q.above) < interval:
		return false
	case !q.dropping:
		q.begin(interval, now)
		return true
	case now.Before(q.next):
		return false
	}
	q.count++
	q.schedule(q.next)
	return true
}

// begin begins to signal. If that last ended a short while ago, it goes on at the rate that was right then.
func (q *Queue) begin(interval time.Duration, now time.Time) {
	grown := q.count - q.before
	q.count = 1
	if grown > 1 && now.Sub(q.next) < 16*interval {
		q.count = grown
	}
	q.dropping, q.before, q.pause = true, q.count, interval
	q.schedule(now)
}

// schedule sets the time of the next signal. The rate of a TCP is inversely proportional to the square root of its loss rate.
func (q *Queue) schedule(last time.Time) {
	q.next = last.Add(time.Duration(float64(q.pause) / math.Sqrt(float64(q.count))))
}

// Emptied is a Queue with packets that do not show for how long they have waited. That is no longer than since the queue was last empty.
type Emptied struct {
	Queue
	since time.Time // when the queue was last empty; zero: it is now
}

// NewEmptied is New for such a queue.
func NewEmptied(target, interval time.Duration) *Emptied {
	return &Emptied{Queue: *New(target, interval)}
}

// Empty notes that the queue is empty.
func (q *Emptied) Empty() { q.since = time.Time{} }

// Busy reports whether the packets that leave the queue at now may have waited for longer than the target.
func (q *Emptied) Busy(now time.Time) bool { return !q.since.IsZero() && now.Sub(q.since) >= q.target }

// SignalBatch is Signal for packets that leave the queue together; more says that others may be left.
func (q *Emptied) SignalBatch(more bool, roundTrip time.Duration, now time.Time) bool {
	if q.since.IsZero() || !more {
		q.since = now
	}
	waited := now.Sub(q.since)
	if !more {
		q.Empty()
	}
	return q.Signal(waited, roundTrip, now)
}
