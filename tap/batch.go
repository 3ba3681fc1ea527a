package tap

import "weft/tap/virtio"

// Batch is the arena that a queue reads frames into: one piece of memory, owned by one goroutine and used again for
// every batch, so that the hot path allocates nothing.
//
// Frames lie one behind the other, each with headroom before it and tailroom after it, so that a wire header and a tag
// can be written around a frame where it lies, and frames of equal size form one contiguous run for the socket:
//
//	| headroom | frame 0 | tailroom | headroom | frame 1 | tailroom | ...
type Batch struct {
	buf      []byte
	used     int
	headroom int
	tailroom int
	frames   []Frame
	starts   []int // where the headroom of each frame starts in buf
}

// NewBatch returns an empty batch with room for size bytes and at most frames frames. headroom and tailroom are the
// bytes kept free around each frame; headroom is at least virtio.HeaderLen, as the kernel's header is read into it.
func NewBatch(size, frames, headroom, tailroom int) *Batch {
	return &Batch{
		buf:      make([]byte, size),
		headroom: max(headroom, virtio.HeaderLen),
		tailroom: tailroom,
		frames:   make([]Frame, 0, frames),
		starts:   make([]int, 0, frames),
	}
}

// Reset empties the batch. What Frames returned before is no longer valid.
func (b *Batch) Reset() { b.used, b.frames, b.starts = 0, b.frames[:0], b.starts[:0] }

// Frames returns what was read since Reset, in order. It is valid until the next Reset.
func (b *Batch) Frames() []Frame { return b.frames }

// Headroom returns the number of free bytes before each frame.
func (b *Batch) Headroom() int { return b.headroom }

// Around returns frame i with its headroom before and its tailroom after it.
func (b *Batch) Around(i int) []byte {
	start := b.starts[i]
	return b.buf[start : start+b.headroom+len(b.frames[i].Data)+b.tailroom]
}

// Space returns memory for one more frame of up to most bytes with before bytes of the headroom in front of it, or nil
// where the batch is full. It is for implementations of Queue: read into it, then Append.
func (b *Batch) Space(before, most int) []byte {
	if len(b.frames) == cap(b.frames) || b.used+b.headroom+most+b.tailroom > len(b.buf) {
		return nil
	}
	start := b.used + b.headroom
	return b.buf[start-before : start+most]
}

// Append adds the frame of n bytes that was read behind the headroom of the last Space.
func (b *Batch) Append(offload virtio.Header, n int) {
	start := b.used + b.headroom
	b.frames = append(b.frames, Frame{Offload: offload, Data: b.buf[start : start+n : start+n+b.tailroom]})
	b.starts = append(b.starts, b.used)
	b.used = start + n + b.tailroom
}
