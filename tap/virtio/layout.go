package virtio

import (
	"encoding/binary"
	"errors"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Errors of Inspect, CheckSingle and Joiner, returned unwrapped; each is a reason to drop a frame and to count it.
var (
	// ErrTruncated: the frame ends within its headers.
	ErrTruncated = errors.New("virtio: headers cut short")
	// ErrProtocol: neither TCP nor UDP over IPv4 or IPv6, or behind headers that no superframe has, such as AH and ESP.
	ErrProtocol = errors.New("virtio: neither TCP nor UDP over IP")
	// ErrFragment: a fragment of an IP packet.
	ErrFragment = errors.New("virtio: fragment of a packet")
	// ErrGSO: the kind of superframe, its segment size or its number of segments cannot be.
	ErrGSO = errors.New("virtio: offload metadata contradicts the frame")
	// ErrChecksum: the checksum left to write is not where the transport header has it, or none is said to be left.
	ErrChecksum = errors.New("virtio: checksum is not that of the transport header")
	// ErrLength: a length in a header contradicts the frame's.
	ErrLength = errors.New("virtio: a length in the headers contradicts the frame")
	// ErrFlags: a TCP segment that stands alone by its flags (SYN, RST, URG), as a superframe.
	ErrFlags = errors.New("virtio: TCP flags that no superframe has")
)

// Limits of a superframe.
const (
	// maxPacket is the most bytes of an IP packet: the length field of IPv4 has 16 bits.
	maxPacket = 1<<16 - 1
	// maxSegments bounds what one TCP superframe can cost. The smallest MSS that Linux uses (48 bytes,
	// net.ipv4.tcp_min_snd_mss) makes 1,365 segments of 64 KiB.
	maxSegments = 2048
	// maxSegmentsUDP is UDP_MAX_SEGMENTS, which the kernel's write path checks (include/linux/udp.h).
	maxSegmentsUDP = 128
	// gsoByFrags is GSO_BY_FRAGS, a segment size that means something else to the kernel and is refused by it.
	gsoByFrags = 0xffff
	// minCsumStart is the shortest Ethernet and IP header: the kernel refuses a checksum that starts within them.
	minCsumStart = ether.HeaderLen + packet.IPv4MinLen
	// maxCsumStart keeps the checksum's place within 16 bits when the kernel adds its headroom to it.
	maxCsumStart = 1<<15 - 1
)

// Layout is where things are in a superframe, derived from the frame itself and never from what the header claims for
// HdrLen. It is a plain value, made by Inspect; all lengths and offsets are in bytes, offsets from the frame's start.
type Layout struct {
	// Type is GSOTCPv4, GSOTCPv6 or GSOUDPL4, without GSOECN.
	Type GSOType
	// ECN: the header had GSOECN.
	ECN bool
	// L3 and L4 are where the IP header and the transport header start. L4 is CsumStart.
	L3, L4 int
	// CsumOffset is where the checksum is, from L4: 16 for TCP, 6 for UDP.
	CsumOffset int
	// HeaderLen is the length of everything before the payload.
	HeaderLen int
	// SegmentSize is the payload of every segment but the last, which may have less.
	SegmentSize int
	// Payload is the payload of the whole superframe, at least 1.
	Payload int
	// Segments is the number of segments, at least 1: the kernel hands out superframes of one segment, too.
	Segments int

	ipv6 bool
	tcp  bool
}

// Inspect checks a superframe and returns its layout. It accepts 802.1Q and 802.1ad tags, at most two, IPv4 with
// options, IPv6 with hop-by-hop, routing and destination options, and TCP with options. Whatever it accepts, the
// kernel's TAP takes (tun_get_user and virtio_net_hdr_to_skb, include/linux/virtio_net.h) and its segmentation agrees
// with: it is stricter than both where they would only drop later.
//
// A superframe of one segment is better handed to a kernel as a single frame, as Joiner does: the kernel takes TCP
// options for payload when it decides whether there is anything to cut, and then drops what has nothing to be cut.
//
// The frame must be exactly as long as its IP header says: a superframe has no Ethernet padding, and segmentation would
// take it for payload. The errors are those of this package, unwrapped; Inspect does not allocate.
func Inspect(h Header, frame []byte) (Layout, error) {
	if h.Flags&FlagNeedsChecksum == 0 {
		return Layout{}, ErrChecksum
	}
	if int(h.HdrLen) > len(frame) {
		return Layout{}, ErrTruncated // the kernel refuses it
	}
	var l Layout
	err := l.inspect(frame, h.GSOType&^GSOECN, h.GSOType&GSOECN != 0, int(h.GSOSize))
	switch {
	case err != nil:
		return Layout{}, err
	case int(h.CsumStart) != l.L4 || int(h.CsumOffset) != l.CsumOffset:
		return Layout{}, ErrChecksum
	case l.HeaderLen+l.Payload != len(frame):
		return Layout{}, ErrLength
	}
	return l, nil
}

// inspect is Inspect for the headers alone, which frame must hold: lengths are those that the headers say. On an error
// l is left in any state.
func (l *Layout) inspect(frame []byte, kind GSOType, ecn bool, size int) error {
	if err := l.locate(frame); err != nil {
		return err
	}
	if kind != l.kind() || ecn && !l.tcp || size <= 0 || size >= gsoByFrags {
		return ErrGSO
	}
	if l.Payload <= 0 {
		return ErrLength
	}
	if err := l.checkTransport(frame); err != nil {
		return err
	}
	l.Type, l.ECN, l.SegmentSize = kind, ecn, size
	l.Segments = (l.Payload + size - 1) / size
	if l.Segments > l.maxSegments() {
		return ErrGSO
	}
	return nil
}

// kind returns the only kind of superframe that l can be.
func (l *Layout) kind() GSOType {
	switch {
	case !l.tcp:
		return GSOUDPL4
	case l.ipv6:
		return GSOTCPv6
	default:
		return GSOTCPv4
	}
}

func (l *Layout) maxSegments() int {
	if l.tcp {
		return maxSegments
	}
	return maxSegmentsUDP
}

// checkTransport checks what in the transport header of a superframe locate leaves open.
func (l *Layout) checkTransport(frame []byte) error {
	if l.tcp {
		if frame[l.L4+tcpFlags]&(flagSYN|flagRST|flagURG) != 0 {
			return ErrFlags
		}
		return nil
	}
	if int(binary.BigEndian.Uint16(frame[l.L4+udpLength:])) != udpLen+l.Payload {
		return ErrLength
	}
	return nil
}

// CheckSingle checks the header of a single frame, whose checksum may be left to write: that it lies in the frame,
// behind the Ethernet header and the shortest IP header. Which protocol that is, is not looked at, as the kernel does
// not either. The errors are ErrGSO, ErrTruncated and ErrChecksum, unwrapped.
func CheckSingle(h Header, frame []byte) error {
	start, end := int(h.CsumStart), int(h.CsumStart)+int(h.CsumOffset)+2
	switch {
	case h.GSOType != GSONone:
		return ErrGSO
	case len(frame) < ether.HeaderLen || int(h.HdrLen) > len(frame):
		return ErrTruncated
	case h.Flags&FlagNeedsChecksum == 0:
		return nil
	case start < minCsumStart || start > maxCsumStart || end > len(frame):
		return ErrChecksum
	}
	return nil
}

// Segment returns the payload of segment i, from 0 to l.Segments-1, of the superframe that l is the layout of. It lies
// in frame.
func (l Layout) Segment(frame []byte, i int) []byte {
	start := l.HeaderLen + i*l.SegmentSize
	end := start + l.segmentLen(i)
	return frame[start:end:end]
}

// segmentLen returns the payload bytes of segment i.
func (l *Layout) segmentLen(i int) int { return min(l.SegmentSize, l.Payload-i*l.SegmentSize) }

// packetLen returns the length of the IP packet with payload bytes behind these headers.
func (l *Layout) packetLen(payload int) int { return l.HeaderLen - l.L3 + payload }
