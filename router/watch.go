package router

import (
	"errors"
	"slices"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/capture"
	"weft/router/flows"
	"weft/router/session"
	"weft/tap"
	"weft/tap/virtio"
)

// maxWatchers bounds the captures, and the samplers of flows, at once.
const maxWatchers = 8

// Errors of Capture and SampleFlows while the greatest number of them runs.
var (
	ErrCaptures = errors.New("router: too many captures at once")
	ErrSamplers = errors.New("router: too many samplers of flows at once")
)

// watchers see the frames on their way between this node and its peers. A frame costs one load of the pointer to them while there
// are none. They are constant once they are stored.
type watchers struct {
	captures []*capture.Capture
	samplers []*flows.Sampler
}

// Capture starts to copy the frames to and from a peer, or all peers if id is zero, that match selects: of each the first limit bytes,
// all if limit is 0. match is that of capture.New; the goroutines that carry the frames call it. stop ends the capture; captured
// frames may still be taken. The error is ErrCaptures.
func (e *Engine) Capture(id peer.ID, match func(frame []byte, length int) bool, limit int) (c *capture.Capture, stop func(), err error) {
	if limit == 0 {
		limit = tap.MaxFrame
	}
	c = capture.New(id, match, limit)
	stop, err = watch(e, c, func(w *watchers) *[]*capture.Capture { return &w.captures }, ErrCaptures)
	return c, stop, err
}

// SampleFlows has a sampler count frames to and from peers until stop is called. Frames of the kernel path are not among them: the
// caller adds those. The error is ErrSamplers.
func (e *Engine) SampleFlows(s *flows.Sampler) (stop func(), err error) {
	return watch(e, s, func(w *watchers) *[]*flows.Sampler { return &w.samplers }, ErrSamplers)
}

// watch adds one to a list of the watchers, and stop removes it. The error is full if the list has maxWatchers.
func watch[T comparable](e *Engine, one T, list func(*watchers) *[]T, full error) (stop func(), err error) {
	err = e.changeWatchers(func(w *watchers) error {
		l := list(w)
		if len(*l) >= maxWatchers {
			return full
		}
		*l = append(*l, one)
		return nil
	})
	return func() {
		_ = e.changeWatchers(func(w *watchers) error {
			l := list(w)
			*l = slices.DeleteFunc(*l, func(other T) bool { return other == one })
			return nil
		})
	}, err
}

// changeWatchers replaces the watchers by a copy that change has made, unless that fails.
func (e *Engine) changeWatchers(change func(*watchers) error) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	next := &watchers{}
	if w := e.watchers.Load(); w != nil {
		next.captures, next.samplers = slices.Clone(w.captures), slices.Clone(w.samplers)
	}
	if err := change(next); err != nil {
		return err
	}
	if len(next.captures)+len(next.samplers) == 0 {
		next = nil
	}
	e.watchers.Store(next)
	return nil
}

// watchSent passes a frame that leaves by out to the watchers.
func (e *Engine) watchSent(f *outgoing, to peer.ID, out *egress) {
	w := e.watchers.Load()
	if w == nil {
		return
	}
	if len(w.captures) > 0 {
		captureFrame(w.captures, f.Frame, capture.Frame{At: e.now(), Peer: to, Session: out.session.Index(), Sent: true})
	}
	for _, s := range w.samplers {
		if weight := s.Pick(flows.Userspace); weight > 0 {
			s.Add(flows.Key{Peer: to, Path: flows.Userspace, Sent: true}, f.Data, len(f.Data), f.layout.SegmentSize, weight, e.now())
		}
	}
}

// watchReceived passes frames from peers to the watchers. The peer of a frame is the one behind which its source was just learned: a
// frame may have been coalesced from several, and nothing else in it shows its peer. latest is the session of the last datagram.
func (e *Engine) watchReceived(frames []tap.Frame, latest *session.Session) {
	w := e.watchers.Load()
	if w == nil {
		return
	}
	now, peers := e.now(), e.peers.Load()
	for _, f := range frames {
		if len(w.captures) > 0 {
			from, _ := e.fdb.Lookup(ether.Source(f.Data), now)
			w.captureReceived(f, from, latest, peers, now)
		}
		e.sampleReceived(w.samplers, f, now)
	}
}

// sampleReceived passes a frame from a peer to the samplers. It looks up the peer only for those that take the frame.
func (e *Engine) sampleReceived(samplers []*flows.Sampler, f tap.Frame, now time.Time) {
	for _, s := range samplers {
		weight := s.Pick(flows.Userspace)
		if weight == 0 {
			continue
		}
		length, segment := len(f.Data), 0
		for _, piece := range f.More {
			length += len(piece)
		}
		if f.Offload.GSOType != virtio.GSONone {
			segment = int(f.Offload.GSOSize)
		}
		from, _ := e.fdb.Lookup(ether.Source(f.Data), now)
		s.Add(flows.Key{Peer: from, Path: flows.Userspace}, f.Data, length, segment, weight, now)
	}
}

// captureReceived passes a frame from a peer to the captures. latest is the session of the last datagram; the frame came by it if it
// is a session of its peer.
func (w *watchers) captureReceived(f tap.Frame, from peer.ID, latest *session.Session, peers *snapshot, now time.Time) {
	as := capture.Frame{At: now, Peer: from}
	if v := peers.byID[from]; v != nil && (latest == nil || latest.Peer() != from) {
		latest = v.egress.Load().session
	}
	if latest != nil {
		as.Session = latest.Index()
	}
	captureFrame(w.captures, f, as)
}

// captureFrame passes one frame to the captures. An incomplete checksum is completed in a copy.
func captureFrame(list []*capture.Capture, f tap.Frame, as capture.Frame) {
	as.Data = f.Data
	if f.Offload.GSOType == virtio.GSONone && f.Offload.Flags&virtio.FlagNeedsChecksum != 0 && len(f.More) == 0 {
		as.Data = slices.Clone(f.Data)
		virtio.CompleteChecksum(f.Offload, as.Data)
	}
	for _, c := range list {
		c.Add(as, f.More...)
	}
}
