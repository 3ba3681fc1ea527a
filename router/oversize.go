package router

import (
	"time"

	"weft/internal/ether"
	"weft/router/toobig"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
	"weft/tap/virtio"
)

// This file is the way of the few frames that do not pass as they are. It copies and allocates.

// oversize sees to a frame that is longer than the path to a peer takes: its sender is told, or it is cut where the
// sender has left that to the network.
func (o *outbound) oversize(f *outgoing, to *hop, now time.Time) error {
	mtu := to.maxFrame() - ether.HeaderLen
	switch toobig.Classify(f.Data, mtu) {
	case toobig.NeedsFragments:
		return o.eachFrame(f, func(frame []byte) error { return o.fragment(frame, to, mtu) })
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
func (o *outbound) fragment(frame []byte, to *hop, mtu int) error {
	if len(frame) <= to.maxFrame() {
		return o.pushPlain(frame, to)
	}
	var failed error
	err := toobig.Fragment(frame, mtu, func(piece []byte) {
		if failed == nil {
			failed = o.pushPlain(piece, to)
		}
	})
	if err != nil {
		o.engine.drop(to, DropTooBig, 1)
	}
	return failed
}

// forwardCut sends a superframe whose headers the metadata has no room to describe, in the frames that it stands for, to
// one peer, or to all where to is nil.
func (o *outbound) forwardCut(f *outgoing, to *hop, peers *snapshot) error {
	return o.eachFrame(f, func(frame []byte) error {
		if to != nil {
			return o.pushPlain(frame, to)
		}
		for _, to := range peers.flood {
			if len(frame) > to.maxFrame() {
				o.engine.drop(to, DropTooBig, 1)
				continue
			}
			if err := o.pushPlain(frame, to); err != nil {
				return err
			}
		}
		return nil
	})
}

// eachFrame calls do with the frames that f stands for, all checksums written, until one call fails.
func (o *outbound) eachFrame(f *outgoing, do func(frame []byte) error) error {
	if !f.isSuper() {
		virtio.Complete(f.Offload, f.Data)
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

// pushPlain queues a copy of a plain frame.
func (o *outbound) pushPlain(frame []byte, to *hop) error {
	buf := append(make([]byte, wire.Headroom, wire.Headroom+len(frame)), frame...)
	wire.Header{Type: wire.TypeFrame, Counter: o.engine.counters(1)}.Put(buf)
	wire.Meta{}.Put(buf[wire.HeaderLen:])
	return o.push(underlay.Datagram{Buf: buf}, send{to, 1, len(frame)})
}
