// Package capture copies frames for captures: which frames, how much of them, and how many wait to be taken.
//
// It is pure: the router calls Add for the frames that it carries. See docs/adr/0022-captures.md.
package capture

import (
	"sync/atomic"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
)

// Bounds of a capture. Frames never wait for a capture: those beyond its bounds are not captured, and counted as lost.
const (
	maxFrames = 1024     // that wait to be taken
	maxBytes  = 16 << 20 // of these frames
)

// Frame is a copy of a frame on its way between this node and a peer: before it was sealed, or after it was opened.
// A superframe is captured as a whole.
type Frame struct {
	At   time.Time
	Peer peer.ID // zero if it is unknown, or all peers
	// Session is the index of the session that carries it, 0 if the kernel does.
	Session uint32
	Sent    bool   // to the peer; otherwise it came from there
	Length  int    // of the whole frame in bytes
	Data    []byte // its beginning, up to the limit of the capture
}

// Capture copies frames. All methods may be called from any goroutine.
type Capture struct {
	// Constant after New.
	peer  peer.ID // zero: all
	match func(frame []byte, length int) bool
	limit int // bytes of a frame

	frames chan Frame

	// Atomic.
	waiting atomic.Int64 // bytes in frames
	lost    atomic.Uint64
}

// New returns a Capture of the frames to and from a peer, or all peers if id is zero, that match selects: of each the first limit
// bytes. Add calls match with the beginning of a frame and its whole length. It must not wait, nor keep or modify
// the frame; nil selects all.
func New(id peer.ID, match func(frame []byte, length int) bool, limit int) *Capture {
	return &Capture{peer: id, match: match, limit: limit, frames: make(chan Frame, maxFrames)}
}

// Frames returns the channel of captured frames; for each frame, its receiver calls Taken. It is never closed.
func (c *Capture) Frames() <-chan Frame { return c.frames }

// Taken releases the room of f for other frames.
func (c *Capture) Taken(f Frame) { c.waiting.Add(-int64(len(f.Data))) }

// Lost returns the number of frames that were selected and not captured, because too many waited.
func (c *Capture) Lost() uint64 { return c.lost.Load() }

// Add captures a frame if it is selected: f.Data, followed by the pieces in more. It keeps neither.
func (c *Capture) Add(f Frame, more ...[]byte) {
	f.Length = len(f.Data)
	for _, piece := range more {
		f.Length += len(piece)
	}
	if !c.peer.IsZero() && c.peer != f.Peer || len(f.Data) < ether.HeaderLen || c.match != nil && !c.match(f.Data, f.Length) {
		return
	}
	length := min(f.Length, c.limit)
	if c.waiting.Add(int64(length)) > maxBytes {
		c.lose(length)
		return
	}
	whole := f.Data
	f.Data = append(make([]byte, 0, length), whole[:min(len(whole), length)]...)
	for _, piece := range more {
		f.Data = append(f.Data, piece[:min(len(piece), length-len(f.Data))]...)
	}
	select {
	case c.frames <- f:
	default:
		c.lose(length)
	}
}

func (c *Capture) lose(length int) {
	c.waiting.Add(-int64(length))
	c.lost.Add(1)
}
