package dns

import (
	"net/netip"
	"strings"
	"time"

	"weft/internal/peer"
)

// table holds entries and finds them by key, name and address. It has no lock: its user guards it.
type table struct {
	nodes map[peer.ID]map[key]Entry
	total int

	nonMembers map[peer.ID]struct{} // the nodes in the table that were no members when they were last looked at
	outside    int                  // number of entries of non-members

	// Indexes of the entries that are not removed:
	byName  map[string]map[id]struct{}
	byAddr  map[netip.Addr]map[id]struct{}
	parents map[string]int // number of entries below a name, which exists therefore, also without an address (RFC 8020)
}

func newTable() table {
	return table{
		nodes: make(map[peer.ID]map[key]Entry), nonMembers: make(map[peer.ID]struct{}),
		byName: make(map[string]map[id]struct{}), byAddr: make(map[netip.Addr]map[id]struct{}),
		parents: make(map[string]int),
	}
}

func (t *table) find(node peer.ID, k key) (Entry, bool) {
	e, ok := t.nodes[node][k]
	return e, ok
}

// put adds e, or replaces the entry with its key.
func (t *table) put(e Entry) {
	old, known := t.find(e.Node, e.key())
	if known && !old.Removed {
		t.unindex(old)
	}
	if !known {
		t.total++
		if _, outside := t.nonMembers[e.Node]; outside {
			t.outside++
		}
		if t.nodes[e.Node] == nil {
			t.nodes[e.Node] = make(map[key]Entry)
		}
	}
	t.nodes[e.Node][e.key()] = e
	if !e.Removed {
		t.index(e)
	}
}

// drop removes an entry, which must be in the table.
func (t *table) drop(e Entry) {
	if !e.Removed {
		t.unindex(e)
	}
	t.total--
	if _, outside := t.nonMembers[e.Node]; outside {
		t.outside--
	}
	delete(t.nodes[e.Node], e.key())
	if len(t.nodes[e.Node]) == 0 {
		delete(t.nodes, e.Node)
		delete(t.nonMembers, e.Node)
	}
}

func (t *table) dropOldestTombstone(node peer.ID) bool {
	var oldest Entry
	for _, e := range t.nodes[node] {
		if e.Removed && !e.Withdrawn && (!oldest.Removed || e.At.Before(oldest.At)) {
			oldest = e
		}
	}
	if oldest.Removed {
		t.drop(oldest)
	}
	return oldest.Removed
}

// expire drops the tombstones of entries that were removed at or before the given time.
func (t *table) expire(before time.Time) {
	for _, entries := range t.nodes {
		for _, e := range entries {
			if e.Removed && !e.Withdrawn && !e.At.After(before) {
				t.drop(e)
			}
		}
	}
}

// living returns how many entries of a node are not removed, or can come back.
func (t *table) living(node peer.ID) (n int) {
	for _, e := range t.nodes[node] {
		if !e.Removed || e.Withdrawn {
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

// parentsOf iterates over the names above name: for "a.b.c", over "b.c" and "c".
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
