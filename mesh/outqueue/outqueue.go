// Package outqueue is the queue of the broadcasts that wait to be sent with the next packets of gossip.
//
// It does what memberlist's TransmitLimitedQueue does, in a time that does not grow with the queue for each broadcast, and without
// a preference for long ones: while there are more broadcasts than room in packets, that queue sends the short ones of a round last, and
// so never.
//
// The package starts no goroutine and reads no clock.
package outqueue

import (
	"math"
	"slices"
	"sync"
	"time"
)

const (
	// MaxQueued is how many broadcasts may wait. Beyond it the ones that were sent most often are dropped.
	MaxQueued = 4096
	// StaleAfter is how long a broadcast may wait in the queue. First are sent the ones that were sent least often: while there are more
	// new broadcasts than packets, old ones would wait, and be sent when they are of no use any more.
	StaleAfter = 10 * time.Second
	// sweepPause is the shortest time between two searches for stale ones.
	sweepPause = time.Second
	// factor is how often a broadcast is sent, in multiples of the logarithm of the number of members.
	factor = 4
	// maxMisfits bounds how many broadcasts of a round are looked at that do not fit the rest of a packet.
	maxMisfits = 32
)

// Queue holds broadcasts that wait. The zero Queue is empty. Its methods may be called concurrently.
type Queue struct {
	mu     sync.Mutex
	rounds [][]item  // guarded by mu: by how often they were sent, the oldest first
	count  int       // guarded by mu: of all rounds
	swept  time.Time // guarded by mu: when stale ones were last searched for
}

type item struct {
	msg    []byte
	queued time.Time
}

// Len returns how many broadcasts wait.
func (q *Queue) Len() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.count
}

// Add adds a broadcast at now, and returns how many others were dropped: stale ones, and those for which there is no room.
func (q *Queue) Add(msg []byte, now time.Time) (dropped int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	before := q.count
	if now.Sub(q.swept) >= sweepPause {
		q.sweep(now)
	}
	for round := len(q.rounds) - 1; round >= 0 && q.count >= MaxQueued; round-- {
		if n := min(len(q.rounds[round]), q.count-MaxQueued+1); n > 0 {
			q.rounds[round] = slices.Delete(q.rounds[round], 0, n)
			q.count -= n
		}
	}
	dropped = before - q.count
	q.put(0, item{msg, now})
	return dropped
}

// sweep drops the stale broadcasts; mu is held.
func (q *Queue) sweep(now time.Time) {
	q.swept, q.count = now, 0
	for round := range q.rounds {
		q.rounds[round] = slices.DeleteFunc(q.rounds[round], func(i item) bool { return now.Sub(i.queued) > StaleAfter })
		q.count += len(q.rounds[round])
	}
}

// put adds an item to a round; mu is held.
func (q *Queue) put(round int, i item) {
	for len(q.rounds) <= round {
		q.rounds = append(q.rounds, nil)
	}
	q.rounds[round] = append(q.rounds[round], i)
	q.count++
}

// Take returns the broadcasts for the next packet, in a network of so many members: those that were sent least often, as many as fit
// limit bytes with overhead bytes each.
func (q *Queue) Take(overhead, limit, members int) (msgs [][]byte) {
	q.mu.Lock()
	defer q.mu.Unlock()
	times := factor * int(math.Ceil(math.Log10(float64(members+1))))
	type taken struct {
		item
		sent int
	}
	var again []taken
	for round, items := range q.rounds {
		var misfits []item
		next := 0 // what follows was not looked at
		for ; next < len(items) && overhead < limit && len(misfits) < maxMisfits; next++ {
			it := items[next]
			if overhead+len(it.msg) > limit {
				misfits = append(misfits, it)
				continue
			}
			limit -= overhead + len(it.msg)
			msgs = append(msgs, it.msg)
			if round+1 < times {
				again = append(again, taken{it, round + 1})
			}
		}
		removed := next - len(misfits)
		copy(items[removed:next], misfits)
		clear(items[:removed])
		q.rounds[round] = items[removed:]
		q.count -= removed
	}
	for _, t := range again {
		q.put(t.sent, t.item)
	}
	return msgs
}
