// Package fdb is the forwarding database: it maps MAC addresses to peers.
//
// Every frame needs two look-ups, from many goroutines at once, so reading uses no lock and writes no shared memory:
// the table is an array of buckets, each a chain of entries behind an atomic pointer. Entries are inserted, moved and
// removed under one mutex. Nearly every frame finds a fresh entry, which needs only a few loads.
package fdb

import (
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// Defaults for New.
const (
	DefaultLimit = 65536           // entries
	DefaultAge   = 5 * time.Minute // as in IEEE 802.1D
)

// Table maps MAC addresses to peers. All methods may be called from any goroutine. Lookup never waits for another call,
// and Learn waits only if it changes an entry. Make it with New.
type Table struct {
	// Constant after New.
	buckets []atomic.Pointer[entry]
	factor  uint64 // odd and random, so that a sender cannot choose addresses of one bucket
	shift   int
	limit   int
	age     int64 // seconds
	base    time.Time

	// Guarded by mu, as is every change of a chain.
	mu     sync.Mutex
	counts map[uint64]int // entries of each peer that has any, and of the host

	// Atomic.
	length  atomic.Int64
	refused atomic.Uint64
}

// entry is the state of one address. It stays in its chain until it is removed, and is never reused.
type entry struct {
	mac   uint64 // constant
	where atomic.Uint64
	seen  atomic.Int64          // seconds since base
	next  atomic.Pointer[entry] // changed under Table.mu
}

// New returns an empty table that holds at most limit entries, which expire when they have not been seen for age, in
// whole seconds. Times are relative to start and should carry the monotonic clock.
func New(limit int, age time.Duration, start time.Time) *Table {
	limit = max(limit, 1)
	size := 1 << bits.Len(uint(limit/4)) // chains of two to four entries in a full table
	return &Table{
		buckets: make([]atomic.Pointer[entry], size),
		factor:  rand.Uint64() | 1,
		shift:   64 - bits.Len(uint(size-1)),
		limit:   limit,
		age:     max(int64(age/time.Second), 1),
		base:    start,
		counts:  make(map[uint64]int),
	}
}

// Learn records that a frame from mac came from the peer where, the zero ID for the host itself, at now. moved reports
// that the address was known behind another peer, and moved at once. Group addresses and the zero address are never
// learned. While the table is full, a new address of a peer that has less than its fair share takes the place of one of a peer
// that has more; else it is not learned. Refused counts both.
func (t *Table) Learn(mac ether.Addr, where peer.ID, now time.Time) (moved bool) {
	if mac.IsMulticast() || mac.IsZero() {
		return false
	}
	key, place, sec := mac.Uint64(), binary.BigEndian.Uint64(where[:]), t.seconds(now)
	if e := t.find(key); e != nil && e.where.Load() == place && !t.expired(e, sec) {
		e.touch(sec)
		return false
	}
	return t.change(key, place, sec)
}

// Lookup returns the peer behind mac, the zero ID for the host itself, and whether mac is known at now.
func (t *Table) Lookup(mac ether.Addr, now time.Time) (where peer.ID, ok bool) {
	e := t.find(mac.Uint64())
	if e == nil || t.expired(e, t.seconds(now)) {
		return peer.ID{}, false
	}
	binary.BigEndian.PutUint64(where[:], e.where.Load())
	return where, true
}

// Age removes the entries that have expired at now and returns their number. Expired entries count towards the limit
// until then, but Lookup does not find them.
func (t *Table) Age(now time.Time) int {
	sec := t.seconds(now)
	return t.remove(func(e *entry) bool { return t.expired(e, sec) })
}

// Forget removes all entries of the peer where and returns their number: the peer has left, or is carried on another
// path.
func (t *Table) Forget(where peer.ID) int {
	place := binary.BigEndian.Uint64(where[:])
	return t.remove(func(e *entry) bool { return e.where.Load() == place })
}

// Release does the same as Forget, and returns the addresses in any order.
func (t *Table) Release(where peer.ID) (macs []ether.Addr) {
	place := binary.BigEndian.Uint64(where[:])
	t.remove(func(e *entry) bool {
		found := e.where.Load() == place
		if found {
			macs = append(macs, e.addr())
		}
		return found
	})
	return macs
}

// Elsewhere returns those of macs that are known to be behind others than the peer where.
func (t *Table) Elsewhere(macs []ether.Addr, where peer.ID, now time.Time) (others []ether.Addr) {
	for _, mac := range macs {
		if at, known := t.Lookup(mac, now); known && at != where {
			others = append(others, mac)
		}
	}
	return others
}

// Len returns the number of entries, including those that have expired since the last Age.
func (t *Table) Len() int { return int(t.length.Load()) }

// Refused returns how often an address was not learned, or forgotten for another one, because the table was full.
func (t *Table) Refused() uint64 { return t.refused.Load() }

// find returns the entry of key, or nil.
func (t *Table) find(key uint64) *entry {
	for e := t.bucket(key).Load(); e != nil; e = e.next.Load() {
		if e.mac == key {
			return e
		}
	}
	return nil
}

// change inserts, revives or moves the entry of key, and reports whether it moved.
func (t *Table) change(key, place uint64, sec int64) (moved bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if e := t.find(key); e != nil {
		old := e.where.Load()
		moved = old != place && !t.expired(e, sec)
		t.count(old, -1)
		t.count(place, 1)
		e.where.Store(place)
		e.touch(sec)
		return moved
	}
	if t.Len() >= t.limit {
		t.refused.Add(1)
		if !t.makeRoom(place) {
			return false
		}
	}
	bucket := t.bucket(key)
	e := &entry{mac: key}
	e.where.Store(place)
	e.seen.Store(sec)
	e.next.Store(bucket.Load())
	bucket.Store(e)
	t.length.Add(1)
	t.count(place, 1)
	return false
}

// count changes how many entries place has; mu is held.
func (t *Table) count(place uint64, by int) {
	if t.counts[place] += by; t.counts[place] == 0 {
		delete(t.counts, place)
	}
}

// samples is how many entries makeRoom looks at. An entry of a peer that has half of a full table is nearly always among them.
const samples = 8

// makeRoom removes an entry for one more of place, and reports whether it did; mu is held. Of some entries at random it is the one
// of the peer that has most, if that has more than place. So a peer that sends from many addresses loses its own ones.
func (t *Table) makeRoom(place uint64) bool {
	most := t.counts[place] + 1
	if most > t.limit/len(t.counts) {
		return false // it has its fair share
	}
	var from *atomic.Pointer[entry] // the link to the entry to remove
	first := rand.IntN(len(t.buckets))
	for i, seen := 0, 0; i < len(t.buckets) && seen < samples; i++ {
		link := &t.buckets[(first+i)%len(t.buckets)]
		for e := link.Load(); e != nil; e = link.Load() {
			if n := t.counts[e.where.Load()]; n > most {
				most, from = n, link
			}
			link = &e.next
			seen++
		}
	}
	if from == nil {
		return false
	}
	out := from.Load()
	from.Store(out.next.Load())
	t.length.Add(-1)
	t.count(out.where.Load(), -1)
	return true
}

// remove removes the entries that match and returns their number. A reader at a removed entry can still follow its
// chain, as next does not change.
func (t *Table) remove(match func(*entry) bool) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.buckets {
		link := &t.buckets[i]
		for e := link.Load(); e != nil; e = link.Load() {
			if !match(e) {
				link = &e.next
				continue
			}
			link.Store(e.next.Load())
			t.count(e.where.Load(), -1)
			n++
		}
	}
	t.length.Add(int64(-n))
	return n
}

// bucket returns the head of the chain that key belongs to (multiply-shift hashing, which is universal).
func (t *Table) bucket(key uint64) *atomic.Pointer[entry] {
	return &t.buckets[t.factor*key>>t.shift]
}

func (t *Table) seconds(now time.Time) int64 { return int64(now.Sub(t.base) / time.Second) }

func (t *Table) expired(e *entry, sec int64) bool { return sec-e.seen.Load() >= t.age }

// touch records that e was seen. It writes at most once a second, so that goroutines do not contend for the cache line.
func (e *entry) touch(sec int64) {
	if e.seen.Load() < sec {
		e.seen.Store(sec)
	}
}
