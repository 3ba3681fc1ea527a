// Package virtio encodes the virtio-net header that the kernel puts before every frame of a TAP with IFF_VNET_HDR.
//
// The header says what the sender's stack left undone: a checksum to fill in, a superframe to cut into segments
// (virtio 1.2, section 5.1.6; Linux include/uapi/linux/virtio_net.h).
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
var ErrShort = errors.New("virtio: header cut short")

// Flags of a header.
const (
	FlagNeedsChecksum = 1 // CsumStart and CsumOffset say where a checksum is still to be written
	FlagDataValid     = 2 // the receiver's kernel has checked the checksum
)

// GSOType says what kind of superframe a frame is.
type GSOType uint8

// Kinds of superframe. GSOECN is a bit added to a TCP kind when the CWR flag is in the first segment only.
const (
	GSONone  GSOType = 0
	GSOTCPv4 GSOType = 1
	GSOUDP   GSOType = 3 // UFO: fragmentation, not used by weft
	GSOTCPv6 GSOType = 4
	GSOUDPL4 GSOType = 5 // USO: segments are whole UDP datagrams
	GSOECN   GSOType = 0x80
)

// Header is the metadata of one frame. The zero Header is that of a plain frame with all its checksums.
type Header struct {
	Flags      uint8
	GSOType    GSOType
	HdrLen     uint16 // length of all headers, as the sender guesses it: never to be trusted
	GSOSize    uint16 // payload bytes a segment
	CsumStart  uint16 // where summing starts, from the start of the frame
	CsumOffset uint16 // where the sum goes, from CsumStart
}

// IsPlain reports whether the frame needs no work: one frame, checksums complete.
func (h Header) IsPlain() bool { return h.GSOType == GSONone && h.Flags&FlagNeedsChecksum == 0 }

// Parse reads the header at the start of b.
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

// Put writes h to the first HeaderLen bytes of b, which must be there.
func (h Header) Put(b []byte) {
	_ = b[HeaderLen-1]
	b[0], b[1] = h.Flags, uint8(h.GSOType)
	binary.NativeEndian.PutUint16(b[2:], h.HdrLen)
	binary.NativeEndian.PutUint16(b[4:], h.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], h.CsumStart)
	binary.NativeEndian.PutUint16(b[8:], h.CsumOffset)
}
