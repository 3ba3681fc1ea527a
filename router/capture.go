package router

import (
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/session"
	"weft/tap"
	"weft/tap/virtio"
)

// Bounds of captures. Frames never wait for a capture: those beyond its bounds are not captured, and counted as lost.
const (
	maxCaptures      = 8
	maxCaptured      = 1024     // frames that wait to be taken
	maxCapturedBytes = 16 << 20 // of these frames
)

// ErrCaptures is returned by Capture while the greatest number of captures runs.
var ErrCaptures = errors.New("router: too many captures at once")

// Captured is a copy of a frame on its way between this node and a peer: before it was sealed, or after it was opened.
// A superframe is captured as a whole.
type Captured struct {
	At   time.Time
	Peer peer.ID // zero if it is unknown, or all peers
	// Session is the index of the session that carries it, 0 if the kernel does.
	Session uint32
	Sent    bool   // to the peer; otherwise it came from there
	Length  int    // of the whole frame in bytes
	Frame   []byte // its beginning, up to the limit of the capture
}

// Capture copies frames until it is closed. All methods may be called from any goroutine.
// See docs/adr/0022-captures.md.
type Capture struct {
	engine *Engine
	peer   peer.ID // zero: all
	match  func(frame []byte, length int) bool
	limit  int // bytes of a frame

	frames  chan Captured
	waiting atomic.Int64 // bytes in frames
	lost    atomic.Uint64
	once    sync.Once
}

// Capture starts to copy the frames to and from a peer, or all peers if id is zero, that match selects: of each the
// first limit bytes, all if limit is 0. The goroutines that carry the frames call match, with the beginning of a frame
// and its whole length. It must not wait, nor keep or modify the frame; nil selects all. While there is no capture, the
// cost of a frame is one load of a pointer. The error is ErrCaptures.
func (e *Engine) Capture(id peer.ID, match func(frame []byte, length int) bool, limit int) (*Capture, error) {
	if limit == 0 {
		limit = tap.MaxFrame
	}
	c := &Capture{engine: e, peer: id, match: match, limit: limit, frames: make(chan Captured, maxCaptured)}
	e.mu.Lock()
	defer e.mu.Unlock()
	var others []*Capture
	if list := e.captures.Load(); list != nil {
		others = *list
	}
	if len(others) >= maxCaptures {
		return nil, ErrCaptures
	}
	list := append(slices.Clone(others), c)
	e.captures.Store(&list)
	return c, nil
}

// Close ends the capture. Captured frames may still be taken.
func (c *Capture) Close() {
	c.once.Do(func() {
		e := c.engine
		e.mu.Lock()
		defer e.mu.Unlock()
		left := slices.DeleteFunc(slices.Clone(*e.captures.Load()), func(o *Capture) bool { return o == c })
		if len(left) == 0 {
			e.captures.Store(nil)
			return
		}
		e.captures.Store(&left)
	})
}

// Frames returns the channel of captured frames; for each frame, its receiver calls Taken. It is never closed.
func (c *Capture) Frames() <-chan Captured { return c.frames }

// Taken releases the room of f for other frames.
func (c *Capture) Taken(f Captured) { c.waiting.Add(-int64(len(f.Frame))) }

// Lost returns the number of frames that were selected and not captured, because too many waited.
func (c *Capture) Lost() uint64 { return c.lost.Load() }

// Add captures a frame if it is selected: f.Frame, followed by the pieces in more. It keeps neither. It is for frames
// that the engine does not carry.
func (c *Capture) Add(f Captured, more ...[]byte) {
	f.Length = len(f.Frame)
	for _, piece := range more {
		f.Length += len(piece)
	}
	if !c.peer.IsZero() && c.peer != f.Peer || len(f.Frame) < ether.HeaderLen || c.match != nil && !c.match(f.Frame, f.Length) {
		return
	}
	length := min(f.Length, c.limit)
	if c.waiting.Add(int64(length)) > maxCapturedBytes {
		c.lose(length)
		return
	}
	whole := f.Frame
	f.Frame = append(make([]byte, 0, length), whole[:min(len(whole), length)]...)
	for _, piece := range more {
		f.Frame = append(f.Frame, piece[:min(len(piece), length-len(f.Frame))]...)
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

// captureSent passes a frame that leaves by out to the captures.
func (e *Engine) captureSent(f *outgoing, to peer.ID, out *egress) {
	if list := e.captures.Load(); list != nil {
		capture(*list, f.Frame, Captured{At: e.now(), Peer: to, Session: out.session.Index(), Sent: true})
	}
}

// captureReceived passes frames from peers to the captures. The peer of a frame is the one behind which its source was
// just learned: a frame may have been coalesced from several, and nothing else in it shows its peer. latest is the
// session of the last datagram; the frames came by it if it is a session of their peer.
func (e *Engine) captureReceived(frames []tap.Frame, latest *session.Session) {
	list := e.captures.Load()
	if list == nil {
		return
	}
	now, peers := e.now(), e.peers.Load()
	for _, f := range frames {
		as := Captured{At: now}
		as.Peer, _ = e.fdb.Lookup(ether.Source(f.Data), now)
		s := latest
		if v := peers.byID[as.Peer]; v != nil && (s == nil || s.Peer() != as.Peer) {
			s = v.egress.Load().session
		}
		if s != nil {
			as.Session = s.Index()
		}
		capture(*list, f, as)
	}
}

// capture passes one frame to the captures. An incomplete checksum is completed in a copy.
func capture(list []*Capture, f tap.Frame, as Captured) {
	as.Frame = f.Data
	if f.Offload.GSOType == virtio.GSONone && f.Offload.Flags&virtio.FlagNeedsChecksum != 0 && len(f.More) == 0 {
		as.Frame = slices.Clone(f.Data)
		virtio.CompleteChecksum(f.Offload, as.Frame)
	}
	for _, c := range list {
		c.Add(as, f.More...)
	}
}
