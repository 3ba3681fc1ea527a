package mesh

import (
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/peer"
)

// Rejected describes gossip of members, or of nodes that try to join, that this node could not use: it comes from a newer
// version of weft, is damaged, or is an attack. It is dropped and has no other effect than to be counted here.
type Rejected struct {
	Count uint64    // since the start
	Last  time.Time // when the latest one came
	From  peer.ID   // sender of the latest one; zero when gossip does not name it
	Err   error     // why the latest one could not be used
}

// rejections counts rejected gossip and keeps the latest error. Its methods may be called concurrently.
type rejections struct {
	mu   sync.Mutex
	last Rejected // guarded by mu
}

// record counts one message that could not be used, also in the counter of its reason. from is zero when not known.
func (r *rejections) record(reason *atomic.Uint64, from peer.ID, err error) {
	reason.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = Rejected{Count: r.last.Count + 1, Last: time.Now(), From: from, Err: err}
}

// Rejected returns how much gossip this node could not use since its start, and details of the latest.
func (m *Mesh) Rejected() Rejected {
	m.rejected.mu.Lock()
	defer m.rejected.mu.Unlock()
	return m.rejected.last
}
