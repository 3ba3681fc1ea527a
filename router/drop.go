package router

import (
	"weft/internal/ether"
	"weft/router/drop"
)

// drop counts n drops of one reason, of frames or datagrams from or to the peer v, which may be nil.
func (e *Engine) drop(v *peerView, reason drop.Reason, n int) {
	e.drops.Add(reason, n)
	if v != nil {
		v.drops.Add(reason, n)
	}
}

// check returns the reason for which frame, or one of the frames of length bytes that it stands for, must not cross the
// overlay in either direction; 0 if there is none.
func check(frame []byte, length, longest int) drop.Reason {
	switch {
	case len(frame) < ether.HeaderLen:
		return drop.Runt
	case length > longest:
		return drop.FrameExceedsDeviceMTU
	case ether.Destination(frame).IsLinkLocal():
		return drop.LinkLocal
	}
	if source := ether.Source(frame); source.IsMulticast() || source.IsZero() {
		return drop.BadSource
	}
	return 0
}
