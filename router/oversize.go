package router

import (
	"time"

	"weft/internal/ether"
	"weft/router/drop"
	"weft/router/toobig"
	"weft/tap"
	"weft/tap/virtio"
)

// This file handles the few frames that do not fit the path to their peer. It copies and allocates.

// handleOversize handles a frame that is longer than the path to a peer takes: it is fragmented if its sender allows
// that, otherwise it is dropped, and its sender is informed by ICMP.
func (o *outbound) handleOversize(f *outgoing, to *peerView, out *egress) error {
	mtu := to.maxFrame(out) - ether.HeaderLen
	switch toobig.Classify(f.Data, mtu) {
	case toobig.NeedsFragments:
		return o.eachFrame(f, func(frame []byte) error { return o.fragment(frame, to, out, mtu) })
	case toobig.NeedsReply:
		o.engine.drop(to, drop.FrameExceedsPathMTU, f.frames)
		if o.replies.Allow(toobig.Source(f.Data), o.now) {
			return o.reply(toobig.Reply(f.Data[:f.longest], mtu))
		}
	default:
		o.engine.drop(to, drop.FrameExceedsPathMTU, f.frames)
	}
	return nil
}

// reply writes a frame of the router's own to the host. A lost reply does no harm: the next frame causes another one.
func (o *outbound) reply(frame []byte, ok bool) error {
	if !ok {
		return nil
	}
	_, err := o.writer.write([]tap.Frame{{Data: frame}})
	return err
}

// fragment sends a plain frame to one peer, in fragments if it is too long.
func (o *outbound) fragment(frame []byte, to *peerView, out *egress, mtu int) error {
	if len(frame) <= to.maxFrame(out) {
		return o.carryCopy(frame, to, out)
	}
	var failed error
	err := toobig.Fragment(frame, mtu, func(piece []byte) {
		if failed == nil {
			failed = o.carryCopy(piece, to, out)
		}
	})
	if err != nil {
		o.engine.drop(to, drop.FrameExceedsPathMTU, 1)
	}
	return failed
}

// carrySegments sends a superframe as single frames, because the metadata cannot describe its headers.
func (o *outbound) carrySegments(f *outgoing, to *peerView, out *egress) error {
	return o.eachFrame(f, func(frame []byte) error { return o.carryCopy(frame, to, out) })
}

// eachFrame calls do with the frames that f stands for, with their checksums complete, until one call fails.
func (o *outbound) eachFrame(f *outgoing, do func(frame []byte) error) error {
	if !f.isSuper() {
		virtio.CompleteChecksum(f.Offload, f.Data)
		return do(f.Data)
	}
	var buf []byte
	for i := range f.layout.Segments {
		buf = f.layout.Cut(buf[:0], f.Data, i)
		if err := do(buf); err != nil {
			return err
		}
	}
	return nil
}

// carryCopy queues a copy of a plain frame.
func (o *outbound) carryCopy(frame []byte, to *peerView, out *egress) error {
	f := outgoing{Frame: tap.Frame{Data: frame}, longest: len(frame), frames: 1, bytes: len(frame)}
	w := copyOf(&f, time.Time{})
	return o.carry(&w.outgoing, w.room, to, out, false)
}
