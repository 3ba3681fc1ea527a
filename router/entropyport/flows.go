package entropyport

import (
	"sync/atomic"
	"time"

	"weft/internal/flowhash"
)

// Index returns the number, below n, of the entropy port of a flow. It is the same in both directions and on all nodes with the same n:
// so the frames of a flow and their answers pass the queue with that number at both ends, and the kernel, which reads a flow from the
// queue of the TAP to which its answers were written last, leaves it there.
func Index(flow flowhash.Flow, n int) int { return flow.Index(n, 0) }

// A flow that has paused for changeAfter may change to its entropy port. Until then its frames may wait in another socket of the receiver,
// where those from the new port would overtake them.
const changeAfter = 100 * time.Millisecond

// flowSlots is the number of slots of Flows, and flowSalt makes them independent of the ports.
const (
	flowSlots = 4096
	flowSalt  = 2
)

// Flows remembers when frames of each flow left, so that the proof of a port reorders no flow. Flows that share a slot by chance keep each
// other at the data port at most. The zero value has no flows. Any goroutine may use it.
type Flows struct{ slots [flowSlots]slot }

// epoch is the time from which slots count, so that they do not depend on the clock being set.
var epoch = time.Now()

// slot has the times at which the last frames left, in milliseconds since epoch, modulo 2³².
type slot struct{ data, entropy atomic.Uint32 }

// Leave notes that a frame leaves at now, and reports whether it leaves from its entropy port rather than from the data port. may says that
// it may.
func (f *Flows) Leave(flow flowhash.Flow, may bool, now time.Time) bool {
	s, at := &f.slots[flow.Index(flowSlots, flowSalt)], uint32(now.Sub(epoch).Milliseconds())
	if may && (recent(&s.entropy, at) || !recent(&s.data, at)) {
		note(&s.entropy, at)
		return true
	}
	note(&s.data, at)
	return false
}

// recent reports whether less than changeAfter has passed since a time.
func recent(since *atomic.Uint32, at uint32) bool {
	return at-since.Load() < uint32(changeAfter/time.Millisecond)
}

// note makes at the time, unless it is: most frames of a batch find it noted.
func note(t *atomic.Uint32, at uint32) {
	if t.Load() != at {
		t.Store(at)
	}
}
