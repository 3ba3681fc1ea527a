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

// Bounds of captures. What does not fit is not captured, and counted: frames never wait for who looks at them.
const (
	maxCaptures     = 8
	capturedFrames  = 1024     // that wait to be taken
	capturedWaiting = 16 << 20 // bytes of them
)

// ErrCaptures is returned by Capture while as many run as there may be.
var ErrCaptures = errors.New("router: too many captures at once")

// Captured is a copy of a frame on its way between this node and a peer: as it was before it was sealed, or once it was
// opened. A superframe is one, as long as it is.
type Captured struct {
	At   time.Time
	Peer peer.ID // zero where it is not known, or all of them
	// Session is the index of the session that carries it, 0 where the kernel does.
	Session uint32
	Sent    bool   // to the peer; else it came from there
	Length  int    // in bytes, of the whole
	Frame   []byte // its beginning: all of it, unless less was asked for
}

// Capture takes copies of frames until it is closed. All methods may be called from any goroutine.
type Capture struct {
	engine *Engine
	peer   peer.ID // zero: all
	match  func(frame []byte, length int) bool
	most   int

	frames  chan Captured
	waiting atomic.Int64 // bytes in frames
	lost    atomic.Uint64
	once    sync.Once
}

// Capture begins to copy the frames to and from a peer, or all where id is zero, that match chooses: of each the first most bytes,
// all where most is 0. match is called by the goroutines that carry the frames, with the beginning of one and the length of all of it: it must
// not block, nor keep or change the frame; nil chooses all. While there is no capture, a frame costs one look at a pointer.
func (e *Engine) Capture(id peer.ID, match func(frame []byte, length int) bool, most int) (*Capture, error) {
	if most == 0 {
		most = tap.MaxFrame
	}
	c := &Capture{engine: e, peer: id, match: match, most: most, frames: make(chan Captured, capturedFrames)}
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

// Close ends the capture. What was captured may still be taken.
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

// Frames returns the channel of what was captured; whoever takes from it calls Taken. It is never closed.
func (c *Capture) Frames() <-chan Captured { return c.frames }

// Taken makes room for more in place of f.
func (c *Capture) Taken(f Captured) { c.waiting.Add(-int64(len(f.Frame))) }

// Lost counts the frames that were chosen and not captured, as too many waited.
func (c *Capture) Lost() uint64 { return c.lost.Load() }

// Add captures a frame, if it is chosen: f.Frame and the pieces that follow it are all of it, and are not kept. It is for frames that
// something else than the engine carries.
func (c *Capture) Add(f Captured, more ...[]byte) {
	f.Length = len(f.Frame)
	for _, piece := range more {
		f.Length += len(piece)
	}
	if !c.peer.IsZero() && c.peer != f.Peer || len(f.Frame) < ether.HeaderLen || c.match != nil && !c.match(f.Frame, f.Length) {
		return
	}
	length := min(f.Length, c.most)
	if c.waiting.Add(int64(length)) > capturedWaiting {
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

// captureSent shows a frame that leaves by the lane l to those who look.
func (e *Engine) captureSent(f *outgoing, to peer.ID, l *lane) {
	if list := e.captures.Load(); list != nil {
		capture(*list, f.Frame, Captured{At: e.now(), Peer: to, Session: l.session.Index(), Sent: true})
	}
}

// captureReceived shows frames that came from peers to those who look. Their peer is the one behind which their source has
// just been learned: a frame may have been joined of several that came, and nothing else in it says whose they were.
//
// latest is the session of the last datagram, by which they came if it is of their peer.
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
		if h := peers.byID[as.Peer]; h != nil && (s == nil || s.Peer() != as.Peer) {
			s = h.state.crossing.lane.Load().session
		}
		if s != nil {
			as.Session = s.Index()
		}
		capture(*list, f, as)
	}
}

// capture shows one frame to all that look. A checksum that is left for the kernel to write is written in a copy.
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
