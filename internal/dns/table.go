package dns

import (
	"net/netip"
	"strings"
	"time"

	"weft/internal/peer"
)

// Bounds of what is kept, tombstones included.
const (
	maxEntries     = 64 << 10
	maxNodeEntries = 4096
)

// table holds entries and finds them. It is not locked.
type table struct {
	nodes map[peer.ID]map[key]Entry
	total int

	// Of entries that are not removed:
	byName  map[string]map[id]struct{}
	byAddr  map[netip.Addr]map[id]struct{}
	parents map[string]int // how many there are below a name: it exists, though nothing has it (RFC 8020)
}

func newTable() table {
	return table{
		nodes:  make(map[peer.ID]map[key]Entry),
		byName: make(map[string]map[id]struct{}), byAddr: make(map[netip.Addr]map[id]struct{}),
		parents: make(map[string]int),
	}
}

func (t *table) find(node peer.ID, k key) (Entry, bool) {
	e, ok := t.nodes[node][k]
	return e, ok
}

// put adds e or takes it in the place of what had its key.
func (t *table) put(e Entry) {
	old, known := t.find(e.Node, e.key())
	if known && !old.Removed {
		t.unindex(old)
	}
	if !known {
		t.total++
		if t.nodes[e.Node] == nil {
			t.nodes[e.Node] = make(map[key]Entry)
		}
	}
	t.nodes[e.Node][e.key()] = e
	if !e.Removed {
		t.index(e)
	}
}

// drop forgets an entry that is known.
func (t *table) drop(e Entry) {
	if !e.Removed {
		t.unindex(e)
	}
	t.total--
	delete(t.nodes[e.Node], e.key())
	if len(t.nodes[e.Node]) == 0 {
		delete(t.nodes, e.Node)
	}
}

// room makes room for e, whose key is not known, and reports whether there is any. Of a node at its bound, what lives takes
// the place of the oldest tombstone: that one's node answers for it itself, should it still be told elsewhere. A tombstone
// never takes another's: nodes at the bound would send each other the same ones for ever.
func (t *table) room(e Entry) bool {
	if len(t.nodes[e.Node]) >= maxNodeEntries {
		return !e.Removed && t.dropOldestTombstone(e.Node)
	}
	return t.total < maxEntries
}

func (t *table) dropOldestTombstone(node peer.ID) bool {
	var oldest Entry
	for _, e := range t.nodes[node] {
		if e.Removed && (!oldest.Removed || e.At.Before(oldest.At)) {
			oldest = e
		}
	}
	if oldest.Removed {
		t.drop(oldest)
	}
	return oldest.Removed
}

// expire drops the tombstones from before a time.
func (t *table) expire(before time.Time) {
	for _, entries := range t.nodes {
		for _, e := range entries {
			if e.Removed && !e.At.After(before) {
				t.drop(e)
			}
		}
	}
}

// living returns how many entries of a node are not removed.
func (t *table) living(node peer.ID) (n int) {
	for _, e := range t.nodes[node] {
		if !e.Removed {
			n++
		}
	}
	return n
}

func (t *table) index(e Entry) {
	add(t.byName, e.Name, e.id())
	add(t.byAddr, e.Addr, e.id())
	for parent := range parentsOf(e.Name) {
		t.parents[parent]++
	}
}

func (t *table) unindex(e Entry) {
	remove(t.byName, e.Name, e.id())
	remove(t.byAddr, e.Addr, e.id())
	for parent := range parentsOf(e.Name) {
		if t.parents[parent]--; t.parents[parent] == 0 {
			delete(t.parents, parent)
		}
	}
}

// parentsOf goes through the names above name: of "a.b.c", "b.c" and "c".
func parentsOf(name string) func(yield func(string) bool) {
	return func(yield func(string) bool) {
		for {
			_, parent, below := strings.Cut(name, ".")
			if !below || !yield(parent) {
				return
			}
			name = parent
		}
	}
}

func add[K comparable](m map[K]map[id]struct{}, k K, i id) {
	if m[k] == nil {
		m[k] = make(map[id]struct{})
	}
	m[k][i] = struct{}{}
}

func remove[K comparable](m map[K]map[id]struct{}, k K, i id) {
	delete(m[k], i)
	if len(m[k]) == 0 {
		delete(m, k)
	}
}
