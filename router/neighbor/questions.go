package neighbor

import (
	"net/netip"
	"sync"
	"time"

	"weft/internal/ether"
)

// Bounds of Questions. Hosts repeat a question after a second, and ask three times (RFC 4861, RETRANS_TIMER and
// MAX_MULTICAST_SOLICIT; Linux does the same for ARP).
const (
	// repeatAfter is the time after which the same question means that the first one had no answer.
	repeatAfter = 500 * time.Millisecond
	// repeatWithin is the time after which a question counts as a new one.
	repeatWithin = 10 * time.Second
	// floodPause is the shortest time between two floods of one question.
	floodPause = 5 * time.Second
	// floodsPerSecond and floodBurst bound the floods of all questions together: of a pod that scans the range.
	floodsPerSecond = 10
	floodBurst      = 40
	// maxQuestions is the most questions that are remembered. When they are more, all are forgotten.
	maxQuestions = 1 << 12
)

// Questions decides which questions go to all peers although the owner of the address is known: those that it has not
// answered. The address may have moved to a pod of another node, as VRRP moves it. It may be used by any goroutine.
// See docs/adr/0031-unanswered-questions.md.
type Questions struct {
	mu      sync.Mutex
	pending map[question]asked // guarded by mu
	bucket  float64            // guarded by mu: floods that are allowed now
	filled  time.Time          // guarded by mu: when bucket was last filled
}

// question is a question of one host: the questions of several hosts for one address are no sign that it is not answered.
type question struct {
	target netip.Addr
	asker  ether.Addr
}

type asked struct {
	first, last, flooded time.Time
}

// Repeated reports whether asker has asked for target before, without an answer, so that the question is to go to all
// peers. It is called for every question that was not answered from a Table.
func (q *Questions) Repeated(target netip.Addr, asker ether.Addr, now time.Time) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	key := question{target, asker}
	a, known := q.pending[key]
	if age := now.Sub(a.last); !known || age < 0 || age >= repeatWithin {
		if q.pending == nil || len(q.pending) >= maxQuestions {
			q.pending = make(map[question]asked)
		}
		q.pending[key] = asked{first: now, last: now}
		return false
	}
	a.last = now
	flood := now.Sub(a.first) >= repeatAfter && now.Sub(a.flooded) >= floodPause && q.take(now)
	if flood {
		a.flooded = now
	}
	q.pending[key] = a
	return flood
}

// take uses one of the floods that are allowed now. The caller holds mu.
func (q *Questions) take(now time.Time) bool {
	if q.filled.IsZero() {
		q.bucket = floodBurst
	} else if passed := now.Sub(q.filled).Seconds(); passed > 0 {
		q.bucket = min(q.bucket+passed*floodsPerSecond, floodBurst)
	}
	q.filled = now
	if q.bucket < 1 {
		return false
	}
	q.bucket--
	return true
}
