package router

import (
	"weft/internal/ether"
	"weft/router/drop"
	"weft/router/wire"
	"weft/tap"
	"weft/tap/virtio"
)

// outgoing is a frame from the TAP, with the results of its examination.
type outgoing struct {
	tap.Frame
	layout    virtio.Layout // of a superframe only
	longest   int           // length in bytes of the longest frame that it stands for
	frames    int           // number of frames that it stands for
	bytes     int           // length in bytes of all of them
	cut       bool          // its last segment is not sent; see outbound.slowDown
	flowQueue int           // from which it was read
}

// isSuper reports whether f is a superframe.
func (f *outgoing) isSuper() bool { return f.layout.Segments > 0 }

// examine checks a frame from the TAP; no frame may be longer than longest bytes.
func examine(frame tap.Frame, longest int) (f outgoing, reason drop.Reason) {
	f = outgoing{Frame: frame, longest: len(frame.Data), frames: 1, bytes: len(frame.Data)}
	switch {
	case frame.Offload.IsPlain():
		f.Offload = virtio.Header{} // the kernel may have set the flag for a verified checksum
	case len(frame.Data) < ether.HeaderLen:
		return f, drop.Runt
	case frame.Offload.GSOType == virtio.GSONone:
		if virtio.CheckSingle(frame.Offload, frame.Data) != nil {
			return f, drop.Offload
		}
		if frame.Offload.CsumStart > wire.MaxOffset || frame.Offload.CsumOffset > wire.MaxOffset {
			virtio.CompleteChecksum(frame.Offload, frame.Data)
			f.Offload = virtio.Header{}
		}
	default:
		l, err := virtio.Inspect(frame.Offload, frame.Data)
		if err != nil {
			return f, drop.Offload
		}
		f.layout, f.frames = l, l.Segments
		f.longest = l.HeaderLen + min(l.SegmentSize, l.Payload)
		f.bytes = l.Payload + l.Segments*l.HeaderLen
	}
	return f, check(frame.Data, f.longest, longest)
}

// meta returns the metadata of a single frame. port says that it leaves from an entropy port.
func (f *outgoing) meta(port bool) wire.Meta {
	if f.Offload.IsPlain() {
		return wire.Meta{EntropyPort: port}
	}
	return wire.Meta{EntropyPort: port, Partial: true, CsumStart: uint8(f.Offload.CsumStart), CsumOffset: uint8(f.Offload.CsumOffset)}
}
