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
	// maxAge is how long a binding is good after it was last heard of: as long as hosts take a neighbour to be reachable
	// (RFC 4861, REACHABLE_TIME).
	maxAge = 30 * time.Second
	// maxBindings is how many there are at most; beyond it all are forgotten, and learned again.
	maxBindings = 1 << 14
)

// Table remembers where addresses are, as their holders said. It may be used by any goroutine.
type Table struct {
	mu       sync.Mutex
	bindings map[netip.Addr]binding // guarded by mu
}

type binding struct {
	mac  ether.Addr
	peer peer.ID
	at   time.Time
}

// Learn notes what a message from a peer says of its sender.
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

// Lookup returns where an address is; ok is false where that is not known for certain.
func (t *Table) Lookup(addr netip.Addr, now time.Time) (mac ether.Addr, at peer.ID, ok bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	b, known := t.bindings[addr]
	if age := now.Sub(b.at); !known || age < 0 || age >= maxAge {
		return ether.Addr{}, peer.ID{}, false
	}
	return b.mac, b.peer, true
}

// Forget drops an address: its holder is heard of elsewhere, or not at all.
func (t *Table) Forget(addr netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.bindings, addr)
}

// ForgetPeer drops all that is at a peer.
func (t *Table) ForgetPeer(id peer.ID) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, b := range t.bindings {
		if b.peer == id {
			delete(t.bindings, addr)
		}
	}
}
