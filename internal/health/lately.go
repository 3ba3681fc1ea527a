package health

import (
	"sync"
	"time"
)

// latelyFor is how long growth of a counter is remembered.
const latelyFor = 10 * time.Minute

// Lately is a counter of which only the growth of the last minutes matters. The zero value is ready.
type Lately struct {
	mu    sync.Mutex
	total uint64 // guarded by mu: at the last call
	// Guarded by mu: how far it has grown in this period and in the one before, and when this one began.
	grown, before uint64
	began         time.Time
}

// Growth returns how much the counter, which is at total now, has grown in the last latelyFor to twice that.
func (l *Lately) Growth(total uint64, now time.Time) uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch age := now.Sub(l.began); {
	case age >= 2*latelyFor:
		l.grown, l.before, l.began = 0, 0, now
	case age >= latelyFor:
		l.grown, l.before, l.began = 0, l.grown, now
	}
	if total > l.total {
		l.grown += total - l.total
	}
	l.total = total
	return l.grown + l.before
}
