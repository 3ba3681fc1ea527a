// Package fdb is the forwarding database: behind which peer each MAC address lies.
//
// Every frame looks two addresses up, from many goroutines at once, so reading takes no lock and writes no shared
// memory: the table is an array of buckets, each a chain of entries that hangs on an atomic pointer. Entries are
// inserted, moved and taken out under one mutex; what a frame does nearly always, to find its entry and to find it
// fresh, is a few loads.
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
	DefaultAge   = 5 * time.Minute // as IEEE 802.1D has it
)

// Table maps MAC addresses to peers. All methods may be called at once from any number of goroutines; Lookup never
// waits for another call, and Learn waits only where it changes something. Make it with New.
type Table struct {
	// Constant after New.
	buckets []atomic.Pointer[entry]
	factor  uint64 // odd and random: nobody can choose addresses that all fall into one bucket
	shift   int
	limit   int
	age     int64 // seconds
	base    time.Time

	// Guarded by mu, as is every change of a chain.
	mu sync.Mutex

	// Atomic.
	length  atomic.Int64
	refused atomic.Uint64
}

// entry is what is known of one address. It stays in its chain until it is taken out, and is never used again.
type entry struct {
	mac   uint64 // constant
	where atomic.Uint64
	seen  atomic.Int64          // seconds since base
	next  atomic.Pointer[entry] // changed under Table.mu
}

// New returns an empty table that holds at most limit entries and lets them go when they have not been seen for age,
// which is kept by the second. Times given to the methods count from start; they should carry the monotonic clock.
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
	}
}

// Learn notes that a frame from mac came from the peer where, the zero ID for the host itself, at now. An address that
// is known elsewhere moves at once, and moved says so. Group addresses and the zero address are never learned; neither
// is a new one while the table is full, which Refused counts.
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

// Lookup returns the peer behind mac, the zero ID where that is the host itself, and whether mac is known at now.
func (t *Table) Lookup(mac ether.Addr, now time.Time) (where peer.ID, ok bool) {
	e := t.find(mac.Uint64())
	if e == nil || t.expired(e, t.seconds(now)) {
		return peer.ID{}, false
	}
	binary.BigEndian.PutUint64(where[:], e.where.Load())
	return where, true
}

// Age takes out the entries that have expired at now and returns how many. Until then they use room but Lookup does
// not return them.
func (t *Table) Age(now time.Time) int {
	sec := t.seconds(now)
	return t.remove(func(e *entry) bool { return t.expired(e, sec) })
}

// Forget takes out all entries of the peer where and returns how many: it has left, or is carried another way.
func (t *Table) Forget(where peer.ID) int {
	place := binary.BigEndian.Uint64(where[:])
	return t.remove(func(e *entry) bool { return e.where.Load() == place })
}

// Take is Forget, and returns the addresses, in no order.
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

// Len returns the number of entries, among them those that have expired since the last Age.
func (t *Table) Len() int { return int(t.length.Load()) }

// Refused returns how often an address was not learned because the table was full.
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
		moved = e.where.Load() != place && !t.expired(e, sec)
		e.where.Store(place)
		e.touch(sec)
		return moved
	}
	if t.Len() >= t.limit {
		t.refused.Add(1)
		return false
	}
	bucket := t.bucket(key)
	e := &entry{mac: key}
	e.where.Store(place)
	e.seen.Store(sec)
	e.next.Store(bucket.Load())
	bucket.Store(e)
	t.length.Add(1)
	return false
}

// remove takes out the entries that match and returns how many. A reader on an entry that is taken out goes on along
// its chain: next stays as it was.
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

// touch notes that e was seen. It writes once a second at most, so that queues do not fight for the cache line.
func (e *entry) touch(sec int64) {
	if e.seen.Load() < sec {
		e.seen.Store(sec)
	}
}
