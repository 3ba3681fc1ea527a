// Package virtio encodes the virtio-net header that the kernel puts before every frame of a TAP with IFF_VNET_HDR, and
// does the offloads that this header describes in software: checksums, segmentation, coalescing.
//
// The header describes the work that the sender's stack left undone: a checksum to complete, a superframe to cut into
// segments (virtio 1.2, section 5.1.6; Linux include/uapi/linux/virtio_net.h).
package virtio

import (
	"encoding/binary"
	"errors"
)

// HeaderLen is the length of the header in bytes: struct virtio_net_hdr, without num_buffers.
//
//	 0       1       2       4       6       8       10
//	+-------+-------+-------+-------+-------+-------+
//	| flags | gso   |hdr_len|gso_siz|csum_st|csum_of|   16-bit fields in host order (little endian here)
//	+-------+-------+-------+-------+-------+-------+
const HeaderLen = 10

// ErrShort is returned by Parse for a buffer of less than HeaderLen bytes.
var ErrShort = errors.New("virtio: header truncated")

// Flags of a header.
const (
	FlagNeedsChecksum = 1 // the receiver completes the checksum at CsumStart + CsumOffset
	FlagDataValid     = 2 // the receiver's kernel has checked the checksum
)

// GSOType is the kind of a superframe.
type GSOType uint8

// Kinds of superframe. GSOECN is a bit that is added to a TCP kind if only the first segment has the CWR flag.
const (
	GSONone  GSOType = 0
	GSOTCPv4 GSOType = 1
	GSOUDP   GSOType = 3 // UFO: fragmentation, not used by weft
	GSOTCPv6 GSOType = 4
	GSOUDPL4 GSOType = 5 // USO: segments are whole UDP datagrams
	GSOECN   GSOType = 0x80
)

// Header is the offload metadata of one frame. The zero Header describes a plain frame with all its checksums.
type Header struct {
	Flags      uint8
	GSOType    GSOType
	HdrLen     uint16 // length of all headers, as the sender estimates it: never trusted
	GSOSize    uint16 // payload bytes of each segment
	CsumStart  uint16 // where the checksum begins, from the start of the frame
	CsumOffset uint16 // where to write the checksum, from CsumStart
}

// IsPlain reports whether the frame is a single one with complete checksums.
func (h Header) IsPlain() bool { return h.GSOType == GSONone && h.Flags&FlagNeedsChecksum == 0 }

// Parse reads the header at the start of b and returns the rest of b. The error is ErrShort.
func Parse(b []byte) (h Header, rest []byte, err error) {
	if len(b) < HeaderLen {
		return Header{}, nil, ErrShort
	}
	h = Header{
		Flags:      b[0],
		GSOType:    GSOType(b[1]),
		HdrLen:     binary.NativeEndian.Uint16(b[2:]),
		GSOSize:    binary.NativeEndian.Uint16(b[4:]),
		CsumStart:  binary.NativeEndian.Uint16(b[6:]),
		CsumOffset: binary.NativeEndian.Uint16(b[8:]),
	}
	return h, b[HeaderLen:], nil
}

// Put writes h to the first HeaderLen bytes of b; b must not be shorter.
func (h Header) Put(b []byte) {
	_ = b[HeaderLen-1]
	b[0], b[1] = h.Flags, uint8(h.GSOType)
	binary.NativeEndian.PutUint16(b[2:], h.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], h.CsumOffset)
}
