package router

import (
	"net/netip"
	"sync/atomic"
	"time"

	"weft/router/drop"
	"weft/router/source"
)

// SourceCheck says what happens to sealed frames from a peer with a source address that another node gives out. A node that was
// taken over can send them, and so can a pod on it. The zero SourceCheck is SourceOff.
//
// The kernel path is not checked: its frames do not pass the engine. See docs/SECURITY.md.
type SourceCheck uint8

// Modes.
const (
	SourceOff     SourceCheck = iota + 1
	SourceLog                 // they are counted
	SourceEnforce             // they are counted and dropped
)

// sourceChecker finds frames with foreign source addresses. It belongs to one goroutine, and remembers answers of the ring for a
// moment, so that a frame costs a comparison.
type sourceChecker struct {
	owners AddressOwners // nil: nothing is checked
	cache  [sourceCacheSize]sourceVerdict
	tick   int64 // the time of the batch in units of sourceCacheAge
}

const (
	sourceCacheSize = 256 // a power of two
	// sourceCacheAge is how old a verdict may be: as old as the answers of AddressOwners may be themselves.
	sourceCacheAge = 500 * time.Millisecond
)

// sourceVerdict is whether an address is foreign to a peer.
type sourceVerdict struct {
	addr    source.Key
	from    *peerView
	tick    int64 // sourceChecker.tick when it was made
	foreign bool
}

// begin begins a batch.
func (c *sourceChecker) begin(now time.Time) { c.tick = now.UnixNano() / int64(sourceCacheAge) }

// isForeign reports whether frame, from a peer, has a source address that another node gives out, and returns that address.
// Addresses outside the ranges of the overlay, and those that no node gives out yet, are not foreign.
func (c *sourceChecker) isForeign(frame []byte, from *peerView) (addr source.Key, foreign bool) {
	if c.owners == nil {
		return addr, false
	}
	if addr = source.Of(frame); addr == (source.Key{}) {
		return addr, false
	}
	v := &c.cache[addr.Hash()%sourceCacheSize]
	if v.addr != addr || v.from != from || v.tick != c.tick {
		owner, known := c.owners.OwnerOf(addr.Addr())
		*v = sourceVerdict{addr, from, c.tick, known && owner != from.ID}
	}
	return addr, v.foreign
}

// ForeignSources describes the sealed frames from a peer with a source address that another node gives out.
type ForeignSources struct {
	Frames uint64
	// Last is one of the last addresses, First and Until the times of the first and the last frame of those that follow each other
	// within foreignPause. All are zero if there was none.
	Last         netip.Addr
	First, Until time.Time
}

// foreignPause is the time after which the next foreign frame begins a new episode.
const foreignPause = 10 * time.Minute

// foreignSources counts for one peer. Its methods may be called from any goroutine.
type foreignSources struct {
	frames atomic.Uint64
	last   atomic.Pointer[ForeignSources] // without Frames; renewed once a second
}

// note counts a frame with the address addr. Further frames of the same second are counted only.
func (f *foreignSources) note(addr netip.Addr, now time.Time) {
	f.frames.Add(1)
	old := f.last.Load()
	if old != nil && now.Sub(old.Until) < time.Second {
		return
	}
	next := &ForeignSources{Last: addr, First: now, Until: now}
	if old != nil && now.Sub(old.Until) < foreignPause {
		next.First = old.First
	}
	f.last.Store(next)
}

// stats returns what was counted.
func (f *foreignSources) stats() (s ForeignSources) {
	if last := f.last.Load(); last != nil {
		s = *last
	}
	s.Frames = f.frames.Load()
	return s
}

// admits checks the source address of a sealed frame from the present peer. It returns the reason to drop the frame.
func (in *inbound) admits(frame []byte) drop.Reason {
	addr, foreign := in.sources.isForeign(frame, in.from)
	if !foreign {
		return 0
	}
	in.from.foreign.note(addr.Addr(), in.now)
	if in.engine.sourceCheck == SourceEnforce {
		return drop.ForeignSource
	}
	return 0
}
