// Package storetest holds a store in memory that can crash at every write, and the suite that every store.Store passes.
package storetest

import (
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"

	"weft/internal/peer"
	"weft/ipam/store"
)

// ErrCrash is what Update returns when it crashes.
var ErrCrash = errors.New("storetest: crash")

// Memory is a store.Store in memory. It outlives Close, as a file outlives the process: open it again with Reopen.
// Its methods may be called concurrently.
type Memory struct {
	mu      sync.Mutex
	self    peer.ID
	ranges  map[netip.Prefix]store.Range
	leases  map[netip.Addr]store.Lease
	updates int
	crash   func(update int) (crash, written bool)
	down    bool
}

var _ store.Store = (*Memory)(nil)

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{ranges: make(map[netip.Prefix]store.Range), leases: make(map[netip.Addr]store.Lease)}
}

// Copy returns another store with what is on disk, as a backup has it.
func (m *Memory) Copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Memory{self: m.self, ranges: maps.Clone(m.ranges), leases: maps.Clone(m.leases)}
}

// OnUpdate makes every Update ask f, with the number of updates before it, whether to crash, and whether what it was to
// write is on disk all the same. A store that has crashed refuses everything until Reopen. A nil f never crashes.
func (m *Memory) OnUpdate(f func(update int) (crash, written bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crash = f
}

// Updates is how many updates there have been, crashed ones included.
func (m *Memory) Updates() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.updates
}

// Reopen makes a store that crashed or was closed usable again, with what is on disk.
func (m *Memory) Reopen() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = false
	return m
}

// Load implements store.Store.
func (m *Memory) Load() (store.State, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return store.State{}, ErrCrash
	}
	state := store.State{Source: "memory", Self: m.self, Ranges: make(map[netip.Prefix]store.Range)}
	for cidr, r := range m.ranges {
		state.Ranges[cidr] = store.Range{Ring: slices.Clone(r.Ring), Vote: slices.Clone(r.Vote), Decrees: maps.Clone(r.Decrees)}
	}
	state.Leases = slices.SortedFunc(maps.Values(m.leases), func(a, b store.Lease) int { return a.Addr.Compare(b.Addr) })
	return state, nil
}

// Update implements store.Store.
func (m *Memory) Update(f func(store.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.down {
		return ErrCrash
	}
	next := &memoryTx{self: m.self, ranges: maps.Clone(m.ranges), leases: maps.Clone(m.leases)}
	if err := f(next); err != nil {
		return err
	}
	crash, written := false, true
	if m.crash != nil {
		crash, written = m.crash(m.updates)
	}
	m.updates++
	if !crash || written {
		m.self, m.ranges, m.leases = next.self, next.ranges, next.leases
	}
	if crash {
		m.down = true
		return ErrCrash
	}
	return nil
}

// Close implements store.Store.
func (m *Memory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = true
	return nil
}

type memoryTx struct {
	self   peer.ID
	ranges map[netip.Prefix]store.Range
	leases map[netip.Addr]store.Lease
}

func (t *memoryTx) SetSelf(self peer.ID) error {
	t.self = self
	return nil
}

func (t *memoryTx) SetRing(cidr netip.Prefix, ring []byte) error {
	r := t.ranges[cidr]
	r.Ring = slices.Clone(ring)
	t.ranges[cidr] = r
	return nil
}

func (t *memoryTx) SetVote(cidr netip.Prefix, vote []byte) error {
	r := t.ranges[cidr]
	r.Vote = slices.Clone(vote)
	t.ranges[cidr] = r
	return nil
}

func (t *memoryTx) SetDecree(cidr netip.Prefix, gone peer.ID, decree []byte) error {
	r := t.ranges[cidr]
	r.Decrees = maps.Clone(r.Decrees) // that of before must stay as it is
	if decree == nil {
		delete(r.Decrees, gone)
	} else {
		if r.Decrees == nil {
			r.Decrees = make(map[peer.ID][]byte)
		}
		r.Decrees[gone] = slices.Clone(decree)
	}
	if len(r.Decrees) == 0 {
		r.Decrees = nil
	}
	t.ranges[cidr] = r
	return nil
}

func (t *memoryTx) PutLease(lease store.Lease) error {
	lease.Since = lease.Since.UTC().Round(0)
	t.leases[lease.Addr] = lease
	return nil
}

func (t *memoryTx) DeleteLease(addr netip.Addr) error {
	delete(t.leases, addr)
	return nil
}
