package mesh

import (
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/peer"
)

// Rejected is gossip of members, or of nodes that would be some, that this node could not use: of a newer weft, damaged, or
// sent by one that means ill. It is ignored, and costs nothing but this.
type Rejected struct {
	Count uint64    // since the start
	Last  time.Time // when the latest came
	From  peer.ID   // who sent that; zero where gossip does not say
	Err   error     // what was wrong with it
}

// rejections keeps the latest of it. Its methods may be called concurrently.
type rejections struct {
	mu   sync.Mutex
	last Rejected // guarded by mu
}

// note counts by a reason that from, if known, sent what cannot be used.
func (r *rejections) note(reason *atomic.Uint64, from peer.ID, err error) {
	reason.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = Rejected{Count: r.last.Count + 1, Last: time.Now(), From: from, Err: err}
}

// Rejected returns what is known of gossip that this node could not use; a Count of 0 where there was none.
func (m *Mesh) Rejected() Rejected {
	m.rejected.mu.Lock()
	defer m.rejected.mu.Unlock()
	return m.rejected.last
}
