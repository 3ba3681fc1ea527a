package virtio

import "encoding/binary"

// Complete writes the checksum that h says is left, over frame from h.CsumStart to its end, as the kernel does
// (skb_checksum_help). CheckSingle must have accepted them. Where nothing is left it does nothing.
func CompleteChecksum(h Header, frame []byte) {
	if h.Flags&FlagNeedsChecksum == 0 {
		return
	}
	complete(frame[h.CsumStart:], int(h.CsumOffset))
}

// complete writes the checksum over b to b[offset:], where its pseudo-header's sum is.
func complete(b []byte, offset int) {
	checksum := ^sum(b)
	if checksum == 0 && offset == udpChecksum {
		checksum = 0xffff // 0 says that there is none (RFC 768)
	}
	binary.BigEndian.PutUint16(b[offset:], checksum)
}

// Cut appends to dst segment i of the superframe frame that l is the layout of, as a frame with all its checksums, and
// returns the extended slice: for a superframe whose metadata the wire has no room for, and for a device that takes no
// such superframes. Neither frame nor what dst holds is changed; they must not overlap in dst's capacity.
func (l Layout) Cut(dst, frame []byte, i int) []byte {
	start := len(dst)
	payload := l.Segment(frame, i)
	dst = append(dst, frame[:l.HeaderLen]...)
	dst = append(dst, payload...)
	cut := dst[start:]
	l.SegmentHeaders(cut, i, len(payload), i == l.Segments-1)
	complete(cut[l.L4:], l.CsumOffset)
	return dst
}
