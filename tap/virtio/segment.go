package virtio

import "encoding/binary"

// CompleteChecksum writes the checksum that h leaves to the receiver, over frame from h.CsumStart to its end, as the
// kernel does (skb_checksum_help). CheckSingle must have accepted h and frame. If no checksum is left, it does nothing.
func CompleteChecksum(h Header, frame []byte) {
	if h.Flags&FlagNeedsChecksum == 0 {
		return
	}
	writeChecksum(frame[h.CsumStart:], int(h.CsumOffset))
}

// writeChecksum writes the checksum over b to b[offset:], which holds the sum of the pseudo-header.
func writeChecksum(b []byte, offset int) {
	checksum := ^sum(b)
	if checksum == 0 && offset == udpChecksum {
		checksum = 0xffff // 0 stands for no checksum (RFC 768)
	}
	binary.BigEndian.PutUint16(b[offset:], checksum)
}

// Cut appends segment i of the superframe frame, which has the layout l, to dst as a frame with all its checksums, and
// returns the extended slice. It is used for superframes with metadata that does not fit on the wire, and for devices
// without the feature. It changes neither frame nor the bytes in dst; frame must not overlap the capacity of dst.
func (l Layout) Cut(dst, frame []byte, i int) []byte {
	start := len(dst)
	payload := l.Segment(frame, i)
	dst = append(dst, frame[:l.HeaderLen]...)
	dst = append(dst, payload...)
	cut := dst[start:]
	l.SegmentHeaders(cut, i, len(payload), i == l.Segments-1)
	writeChecksum(cut[l.L4:], l.CsumOffset)
	return dst
}
