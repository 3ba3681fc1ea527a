package router

import (
	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/capture"
	"weft/router/flows"
	"weft/router/session"
	"weft/router/watch"
	"weft/tap"
	"weft/tap/virtio"
)

// Errors of Capture and SampleFlows while the greatest number of them runs.
var (
	ErrCaptures = watch.ErrCaptures
	ErrSamplers = watch.ErrSamplers
)

// Capture starts to copy the frames to and from a peer, or all peers if id is zero, that match selects: of each the first limit bytes,
// all if limit is 0. match is that of capture.New; the goroutines that carry the frames call it. stop ends the capture; captured
// frames may still be taken. The error is ErrCaptures.
func (e *Engine) Capture(id peer.ID, match func(frame []byte, length int) bool, limit int) (c *capture.Capture, stop func(), err error) {
	if limit == 0 {
		limit = tap.MaxFrame
	}
	c = capture.New(id, match, limit)
	stop, err = e.watchers.Capture(c)
	return c, stop, err
}

// SampleFlows has a sampler count frames to and from peers until stop is called. Frames of the kernel path are not among them: the
// caller adds those. The error is ErrSamplers.
func (e *Engine) SampleFlows(s *flows.Sampler) (stop func(), err error) { return e.watchers.Sample(s) }

// watchSent passes a frame that leaves by out to the watchers.
func (e *Engine) watchSent(f *outgoing, to peer.ID, out *egress) {
	w := e.watchers.Load()
	if w == nil {
		return
	}
	if w.Captures() {
		w.CaptureFrame(f.Frame, capture.Frame{At: e.now(), Peer: to, Session: out.session.Index(), Sent: true})
	}
	w.SampleFrame(f.Frame, f.layout.SegmentSize, true, e.now(), func() peer.ID { return to })
}

// watchReceived passes frames from peers to the watchers. The peer of a frame is the one behind which its source was just learned: a
// frame may have been coalesced from several, and nothing else in it shows its peer. latest is the session of the last datagram; a
// frame came by it if it is a session of its peer.
func (e *Engine) watchReceived(frames []tap.Frame, latest *session.Session) {
	w := e.watchers.Load()
	if w == nil {
		return
	}
	now, peers := e.now(), e.peers.Load()
	for _, f := range frames {
		behind := func() peer.ID {
			from, _ := e.fdb.Lookup(ether.Source(f.Data), now)
			return from
		}
		segment := 0
		if f.Offload.GSOType != virtio.GSONone {
			segment = int(f.Offload.GSOSize)
		}
		w.SampleFrame(f, segment, false, now, behind)
		if !w.Captures() {
			continue
		}
		as, by := capture.Frame{At: now, Peer: behind()}, latest
		if v := peers.byID[as.Peer]; v != nil && (by == nil || by.Peer() != as.Peer) {
			by = v.egress.Load().session
		}
		if by != nil {
			as.Session = by.Index()
		}
		w.CaptureFrame(f, as)
	}
}
