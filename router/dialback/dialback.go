// Package dialback keeps the dial-backs that a node has asked for, and limits those that it does for others.
//
// It starts no goroutine and has no clock. See docs/adr/0017-dial-out-nodes.md.
package dialback

import (
	"sync"
	"time"

	"weft/internal/peer"
)

const (
	// interval is the shortest time between two dial-backs for other nodes, intervalEach the same for one node.
	interval     = 50 * time.Millisecond
	intervalEach = 500 * time.Millisecond
	// maxRemembered bounds the nodes that are remembered for intervalEach: those of one intervalEach.
	maxRemembered = int(intervalEach / interval)
)

// Table is the dial-backs of a node. The zero Table is ready for use. All methods may be called from any goroutine.
type Table struct {
	mu   sync.Mutex
	open map[uint64]*Request // guarded by mu: by token
	done []done              // guarded by mu: the last dial-backs for others, the latest last; at most maxRemembered
}

// Request is a dial-back that the node has asked for.
type Request struct {
	// Arrived is closed when the datagram has arrived, Confirmed when the peer has confirmed that it was sent.
	Arrived, Confirmed chan struct{}

	arrived, confirmed bool // guarded by Table.mu
}

// done is a dial-back for a node.
type done struct {
	node peer.ID
	at   time.Time
}

// Add adds a request with a token that is not in use.
func (t *Table) Add(token uint64) *Request {
	r := &Request{Arrived: make(chan struct{}), Confirmed: make(chan struct{})}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.open == nil {
		t.open = map[uint64]*Request{}
	}
	t.open[token] = r
	return r
}

// Remove removes a request.
func (t *Table) Remove(token uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.open, token)
}

// Arrive notes that a dial-back with a token has arrived.
func (t *Table) Arrive(token uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.open[token]; r != nil && !r.arrived {
		r.arrived = true
		close(r.Arrived)
	}
}

// Confirm notes that the peer says that it has dialed back.
func (t *Table) Confirm(token uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if r := t.open[token]; r != nil && !r.confirmed {
		r.confirmed = true
		close(r.Confirmed)
	}
}

// Allow reports whether this node may dial back for another one at now, and if so counts it.
func (t *Table) Allow(node peer.ID, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, d := range t.done {
		since := now.Sub(d.at)
		if since >= 0 && (since < interval || since < intervalEach && d.node == node) {
			return false
		}
		if since < 0 && i == len(t.done)-1 {
			t.done = nil // the clock was set back
		}
	}
	if len(t.done) == maxRemembered {
		t.done = t.done[1:]
	}
	t.done = append(t.done, done{node, now})
	return true
}
