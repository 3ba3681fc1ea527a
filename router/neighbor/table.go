package neighbor

import (
	"net/netip"
	"sync"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// Bounds of a Table.
const (
	// maxAge is how long a binding is valid after its last message: as long as hosts assume a neighbor to be reachable
	// (RFC 4861, REACHABLE_TIME).
	maxAge = 30 * time.Second
	// maxBindings is the most bindings of a table. When it is full, all are removed, and learned again.
	maxBindings = 1 << 14
)

// Table maps IP addresses to hardware addresses and peers, learned from the messages of their holders. It may be used
// by any goroutine.
// See docs/adr/0016-neighbors.md.
type Table struct {
	mu       sync.Mutex
	bindings map[netip.Addr]binding // guarded by mu
}

type binding struct {
	mac  ether.Addr
	peer peer.ID
	at   time.Time
}

// Learn records the sender of a message from a peer.
func (t *Table) Learn(m Message, from peer.ID, now time.Time) {
	if !m.Sender.IsValid() || m.Sender.IsUnspecified() || m.MAC.IsZero() {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.bindings == nil || len(t.bindings) >= maxBindings {
		t.bindings = make(map[netip.Addr]binding)
	}
	t.bindings[m.Sender] = binding{m.MAC, from, now}
}

// Lookup returns the hardware address and the peer of an address; ok is false if there is no binding younger than
// maxAge.
func (t *Table) Lookup(addr netip.Addr, now time.Time) (mac ether.Addr, at peer.ID, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, known := t.bindings[addr]
	if age := now.Sub(b.at); !known || age < 0 || age >= maxAge {
		return ether.Addr{}, peer.ID{}, false
	}
	return b.mac, b.peer, true
}

// Forget removes an address: its holder has moved, or is gone.
func (t *Table) Forget(addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.bindings, addr)
}

// ForgetPeer removes all addresses of a peer.
func (t *Table) ForgetPeer(id peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, b := range t.bindings {
		if b.peer == id {
			delete(t.bindings, addr)
		}
	}
}
