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

// ErrCrash is the error that Update returns when the store crashes.
var ErrCrash = errors.New("storetest: crash")

// Memory is a store.Store in memory. Like a file it survives Close: open it again with Reopen. Its methods may be
// called concurrently.
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

// Copy returns another store with the durable state of m, like a backup.
func (m *Memory) Copy() *Memory {
	m.mu.Lock()
	defer m.mu.Unlock()
	return &Memory{self: m.self, ranges: maps.Clone(m.ranges), leases: maps.Clone(m.leases)}
}

// OnUpdate makes every Update call f, with the number of updates before it, which returns whether to crash, and whether
// the changes are durable all the same. A store that has crashed refuses everything until Reopen. A nil f never
// crashes.
func (m *Memory) OnUpdate(f func(update int) (crash, written bool)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.crash = f
}

// Updates returns how many updates there were, crashed ones included.
func (m *Memory) Updates() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.updates
}

// Reopen makes a store that crashed or was closed usable again, with its durable state.
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
		state.Ranges[cidr] = store.Range{
			Ring:           slices.Clone(r.Ring),
			BootstrapState: slices.Clone(r.BootstrapState),
			ReclaimStates:  maps.Clone(r.ReclaimStates),
		}
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

func (t *memoryTx) SetBootstrapState(cidr netip.Prefix, state []byte) error {
	r := t.ranges[cidr]
	r.BootstrapState = slices.Clone(state)
	t.ranges[cidr] = r
	return nil
}

func (t *memoryTx) SetReclaimState(cidr netip.Prefix, dead peer.ID, state []byte) error {
	r := t.ranges[cidr]
	r.ReclaimStates = maps.Clone(r.ReclaimStates) // the map of the state before must not change
	if state == nil {
		delete(r.ReclaimStates, dead)
	} else {
		if r.ReclaimStates == nil {
			r.ReclaimStates = make(map[peer.ID][]byte)
		}
		r.ReclaimStates[dead] = slices.Clone(state)
	}
	if len(r.ReclaimStates) == 0 {
		r.ReclaimStates = nil
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
