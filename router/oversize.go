package router

import (
	"time"

	"weft/internal/ether"
	"weft/router/toobig"
	"weft/tap"
	"weft/tap/virtio"
)

// This file is the way of the few frames that do not pass as they are. It copies and allocates.

// oversize sees to a frame that is longer than the path to a peer takes: its sender is told, or it is cut where the
// sender has left that to the network.
func (o *outbound) oversize(f *outgoing, to *hop, l *lane, now time.Time) error {
	mtu := to.maxFrame(l) - ether.HeaderLen
	switch toobig.Classify(f.Data, mtu) {
	case toobig.NeedsFragments:
		return o.eachFrame(f, func(frame []byte) error { return o.fragment(frame, to, l, mtu) })
	case toobig.NeedsReply:
		o.engine.drop(to, DropTooBig, f.frames)
		if o.replies.Allow(toobig.Source(f.Data), now) {
			return o.reply(toobig.Reply(f.Data[:f.longest], mtu))
		}
	default:
		o.engine.drop(to, DropTooBig, f.frames)
	}
	return nil
}

// reply hands a frame of the router's own to the host. That the host loses it is of no account: it will be told again.
func (o *outbound) reply(frame []byte, ok bool) error {
	if !ok {
		return nil
	}
	_, err := o.host.write([]tap.Frame{{Data: frame}})
	return err
}

// fragment sends a plain frame to one peer, in pieces where it is too long.
func (o *outbound) fragment(frame []byte, to *hop, l *lane, mtu int) error {
	if len(frame) <= to.maxFrame(l) {
		return o.carryCopy(frame, to, l)
	}
	var failed error
	err := toobig.Fragment(frame, mtu, func(piece []byte) {
		if failed == nil {
			failed = o.carryCopy(piece, to, l)
		}
	})
	if err != nil {
		o.engine.drop(to, DropTooBig, 1)
	}
	return failed
}

// forwardCut sends a superframe whose headers the metadata has no room to describe, in the frames that it stands for.
func (o *outbound) forwardCut(f *outgoing, to *hop, l *lane) error {
	return o.eachFrame(f, func(frame []byte) error { return o.carryCopy(frame, to, l) })
}

// eachFrame calls do with the frames that f stands for, all checksums written, until one call fails.
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
func (o *outbound) carryCopy(frame []byte, to *hop, l *lane) error {
	f := outgoing{Frame: tap.Frame{Data: frame}, longest: len(frame), frames: 1, bytes: len(frame)}
	w := copyOf(&f, time.Time{})
	return o.carry(&w.outgoing, w.room, to, l, false)
}
