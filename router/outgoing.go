package router

import (
	"weft/internal/ether"
	"weft/router/wire"
	"weft/tap"
	"weft/tap/virtio"
)

// outgoing is a frame on its way to a peer, as far as it has been looked at.
type outgoing struct {
	tap.Frame
	layout  virtio.Layout // of a superframe only
	longest int           // length in bytes of the longest frame that it stands for
	frames  int           // how many it stands for
	bytes   int           // of all of them
}

// isSuper reports whether f stands for many frames.
func (f *outgoing) isSuper() bool { return f.layout.Segments > 0 }

// examine checks a frame from the TAP, where no frame may be longer than longest bytes.
func examine(frame tap.Frame, longest int) (f outgoing, reason Drop) {
	f = outgoing{Frame: frame, longest: len(frame.Data), frames: 1, bytes: len(frame.Data)}
	switch {
	case frame.Offload.IsPlain():
		f.Offload = virtio.Header{} // the kernel may say that it has checked the checksum
	case len(frame.Data) < ether.HeaderLen:
		return f, DropRunt
	case frame.Offload.GSOType == virtio.GSONone:
		if virtio.CheckSingle(frame.Offload, frame.Data) != nil {
			return f, DropOffload
		}
		if frame.Offload.CsumStart > wire.MaxOffset || frame.Offload.CsumOffset > wire.MaxOffset {
			virtio.CompleteChecksum(frame.Offload, frame.Data)
			f.Offload = virtio.Header{}
		}
	default:
		l, err := virtio.Inspect(frame.Offload, frame.Data)
		if err != nil {
			return f, DropOffload
		}
		f.layout, f.frames = l, l.Segments
		f.longest = l.HeaderLen + min(l.SegmentSize, l.Payload)
		f.bytes = l.Payload + l.Segments*l.HeaderLen
	}
	return f, check(frame.Data, f.longest, longest)
}

// meta returns the metadata of a frame that stands for itself.
func (f *outgoing) meta() wire.Meta {
	if f.Offload.IsPlain() {
		return wire.Meta{}
	}
	return wire.Meta{Partial: true, CsumStart: uint8(f.Offload.CsumStart), CsumOffset: uint8(f.Offload.CsumOffset)}
}
