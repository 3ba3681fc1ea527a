// Package counters counts frames and the batches that they come in. Any goroutine may count and read, except for a Tally.
package counters

import (
	"math/bits"
	"sync/atomic"
)

// Traffic counts frames and their bytes.
type Traffic struct{ Frames, Bytes atomic.Uint64 }

// Tally adds up a run of frames of one peer, so that a batch costs a few atomic operations instead of two a frame. One goroutine owns it.
type Tally struct {
	of            *Traffic
	frames, bytes uint64
}

// Add counts frames with bytes in all.
func (t *Tally) Add(of *Traffic, frames, bytes int) {
	if t.of != of {
		t.Flush()
		t.of = of
	}
	t.frames += uint64(frames)
	t.bytes += uint64(bytes)
}

// Flush passes on what was added up.
func (t *Tally) Flush() {
	if t.of != nil {
		t.of.Frames.Add(t.frames)
		t.of.Bytes.Add(t.bytes)
	}
	*t = Tally{}
}

// FrameStats shows what offloads save: the number of frames, and that of the pieces they came in, each a superframe or
// a single frame.
type FrameStats struct{ Frames, Pieces uint64 }

// Frames is the atomic form of FrameStats.
type Frames struct{ frames, pieces atomic.Uint64 }

// Count adds frames that came in pieces.
func (c *Frames) Count(frames, pieces int) {
	c.frames.Add(uint64(frames))
	c.pieces.Add(uint64(pieces))
}

// Stats returns what was counted.
func (c *Frames) Stats() FrameStats { return FrameStats{c.frames.Load(), c.pieces.Load()} }

// Buckets is the number of sizes that BatchStats distinguishes.
const Buckets = 8 // 1, 2, 4, 8, 16, 32, 64, 128 and more

// BatchStats shows how much work a wake-up finds. Batches should grow under load, which makes each item cheaper.
type BatchStats struct {
	// Batches is their number, Items that of the frames or datagrams in all of them.
	Batches, Items uint64
	// Sizes[i] counts the batches of more than 1<<(i-1) and at most 1<<i items, the last one also larger batches.
	Sizes [Buckets]uint64
}

// Batches is the atomic form of BatchStats.
type Batches struct {
	items atomic.Uint64
	sizes [Buckets]atomic.Uint64
}

// Count adds a batch of n items.
func (c *Batches) Count(n int) {
	c.items.Add(uint64(n))
	c.sizes[min(bits.Len(uint(max(n, 1)-1)), Buckets-1)].Add(1)
}

// Stats returns what was counted.
func (c *Batches) Stats() BatchStats {
	s := BatchStats{Items: c.items.Load()}
	for i := range c.sizes {
		s.Sizes[i] = c.sizes[i].Load()
		s.Batches += s.Sizes[i]
	}
	return s
}
