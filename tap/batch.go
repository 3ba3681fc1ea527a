package tap

import "weft/tap/virtio"

// Batch is the arena that a queue reads frames into: one buffer that belongs to one goroutine and is reused for every
// batch, so that the hot path allocates nothing.
//
// Frames lie one behind the other, each with headroom before it and tailroom behind it. So a wire header and a tag can
// be written around a frame in place, and frames of equal size form one contiguous run for the socket:
//
//	| headroom | frame 0 | tailroom | headroom | frame 1 | tailroom | ...
//
// See docs/adr/0010-rejected-optimizations.md.
type Batch struct {
	buf      []byte
	used     int
	headroom int
	tailroom int
	frames   []Frame
	starts   []int   // the offset of each frame's headroom in buf
	flows    []uint8 // the flow queue of each frame
	waiting  uint32  // see Waiting
}

// NewBatch returns an empty batch of size bytes for at most frames frames. headroom and tailroom are the free bytes
// around each frame; headroom is at least virtio.HeaderLen, as the kernel's header is read into it.
func NewBatch(size, frames, headroom, tailroom int) *Batch {
	return &Batch{
		buf:      make([]byte, size),
		headroom: max(headroom, virtio.HeaderLen),
		tailroom: tailroom,
		frames:   make([]Frame, 0, frames),
		starts:   make([]int, 0, frames),
		flows:    make([]uint8, 0, frames),
	}
}

// Reset empties the batch. Earlier results of Frames are no longer valid.
func (b *Batch) Reset() {
	b.used, b.frames, b.starts, b.flows, b.waiting = 0, b.frames[:0], b.starts[:0], b.flows[:0], 0
}

// Frames returns the frames read since Reset, in order. The result is valid until the next Reset.
func (b *Batch) Frames() []Frame { return b.frames }

// Headroom returns the number of free bytes before each frame.
func (b *Batch) Headroom() int { return b.headroom }

// FlowQueue returns the flow queue from which frame i was read, below FlowQueues.
func (b *Batch) FlowQueue(i int) int { return int(b.flows[i]) }

// Waiting returns the flow queues that may have more frames: bit i stands for flow queue i.
func (b *Batch) Waiting() uint32 { return b.waiting }

// SetWaiting sets the result of Waiting. It is for implementations of Queue.
func (b *Batch) SetWaiting(flowQueues uint32) { b.waiting = flowQueues }

// Around returns frame i with its headroom and its tailroom.
func (b *Batch) Around(i int) []byte {
	start := b.starts[i]
	return b.buf[start : start+b.headroom+len(b.frames[i].Data)+b.tailroom]
}

// Space returns memory for one more frame of up to most bytes, with before bytes of the headroom in front of it, or nil
// if the batch is full. It is for implementations of Queue, which read into it and then call Append.
func (b *Batch) Space(before, most int) []byte {
	if len(b.frames) == cap(b.frames) || b.used+b.headroom+most+b.tailroom > len(b.buf) {
		return nil
	}
	start := b.used + b.headroom
	return b.buf[start-before : start+most]
}

// IsFull reports whether there may be no space for another frame.
func (b *Batch) IsFull() bool { return b.Space(0, MaxFrame) == nil }

// Append adds the frame of n bytes that was read from a flow queue into the last Space.
func (b *Batch) Append(flowQueue int, offload virtio.Header, n int) {
	start := b.used + b.headroom
	b.frames = append(b.frames, Frame{Offload: offload, Data: b.buf[start : start+n : start+n+b.tailroom]})
	b.starts = append(b.starts, b.used)
	b.flows = append(b.flows, uint8(flowQueue))
	b.used = start + n + b.tailroom
}
