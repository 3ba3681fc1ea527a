package virtio

import (
	"encoding/binary"
	"errors"

	"weft/internal/ether"
	"weft/internal/packet"
)

// Errors of Inspect, CheckSingle and Coalescer, returned unwrapped: each is a reason to drop a frame and to count it.
var (
	// ErrTruncated: the frame ends within its headers.
	ErrTruncated = errors.New("virtio: headers truncated")
	// ErrProtocol: not TCP or UDP over IPv4 or IPv6, or behind headers that no superframe has, such as AH and ESP.
	ErrProtocol = errors.New("virtio: not TCP or UDP over IP")
	// ErrFragment: the packet is an IP fragment.
	ErrFragment = errors.New("virtio: IP fragment")
	// ErrGSO: the kind of superframe, its segment size or its number of segments is invalid.
	ErrGSO = errors.New("virtio: offload metadata contradicts the frame")
	// ErrChecksum: the checksum to complete is not the one of the transport header, or the header declares none.
	ErrChecksum = errors.New("virtio: checksum is not that of the transport header")
	// ErrLength: a length in a header contradicts the length of the frame.
	ErrLength = errors.New("virtio: a length in the headers contradicts the frame")
	// ErrFlags: a TCP superframe has a flag that only a single segment may have (SYN, RST, URG).
	ErrFlags = errors.New("virtio: TCP flags that no superframe has")
)

// Limits of a superframe.
const (
	// maxPacket is the longest IP packet in bytes: the length field of IPv4 has 16 bits.
	maxPacket = 1<<16 - 1
	// maxSegments bounds the cost of one TCP superframe. The smallest MSS that Linux uses (48 bytes,
	// net.ipv4.tcp_min_snd_mss) gives 1,365 segments for 64 KiB.
	maxSegments = 2048
	// maxSegmentsUDP is UDP_MAX_SEGMENTS, a limit of the kernel's write path (include/linux/udp.h).
	maxSegmentsUDP = 128
	// gsoByFrags is GSO_BY_FRAGS, a segment size with a special meaning that the kernel refuses here.
	gsoByFrags = 0xffff
	// minCsumStart is the length of the shortest Ethernet and IP header: the kernel refuses a checksum that starts
	// within them.
	minCsumStart = ether.HeaderLen + packet.IPv4MinLen
	// maxCsumStart keeps the offset of the checksum within 16 bits when the kernel adds its headroom to it.
	maxCsumStart = 1<<15 - 1
)

// Layout is the position of the headers and segments of a superframe. Inspect derives it from the frame itself, never
// from HdrLen in the virtio header. It is a plain value. All lengths and offsets are in bytes, and offsets count from
// the start of the frame.
type Layout struct {
	// Type is GSOTCPv4, GSOTCPv6 or GSOUDPL4, without GSOECN.
	Type GSOType
	// ECN: the virtio header had GSOECN.
	ECN bool
	// L3 and L4 are the offsets of the IP header and of the transport header. L4 is CsumStart.
	L3, L4 int
	// CsumOffset is the offset of the checksum from L4: 16 for TCP, 6 for UDP.
	CsumOffset int
	// HeaderLen is the length of all headers before the payload.
	HeaderLen int
	// SegmentSize is the payload of every segment except the last, which may be shorter.
	SegmentSize int
	// Payload is the payload of the whole superframe, at least 1.
	Payload int
	// Segments is the number of segments, at least 1: the kernel also makes superframes of one segment.
	Segments int

	ipv6 bool
	tcp  bool
}

// Inspect checks a superframe and returns its layout. It accepts 802.1Q and 802.1ad tags, at most two, IPv4 with
// options, IPv6 with hop-by-hop, routing and destination options, and TCP with options. The kernel's TAP accepts every
// frame that Inspect accepts (tun_get_user and virtio_net_hdr_to_skb, include/linux/virtio_net.h), and its segmentation
// gives the same segments. Inspect is stricter than both where they would drop the frame later.
//
// A superframe of one segment should go to a kernel as a single frame, which the Coalescer ensures: the kernel counts
// TCP options as payload when it decides whether there is anything to cut, and then drops a frame without anything to
// cut.
//
// The frame must be exactly as long as its IP header declares: a superframe has no Ethernet padding, which segmentation
// would treat as payload. The errors are those of this package, unwrapped. Inspect does not allocate.
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

// inspect does the checks of Inspect for the headers alone, which frame must hold; lengths are those in the headers. On
// an error the content of l is undefined.
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

// kind returns the kind that a superframe with the layout l has.
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

// checkTransport checks the fields of the transport header that locate does not check.
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

// CheckSingle checks the virtio header of a single frame. A checksum to complete must lie within the frame, behind the
// Ethernet header and the shortest IP header. Like the kernel, CheckSingle does not check the protocol. The errors are
// ErrGSO, ErrTruncated and ErrChecksum, unwrapped.
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

// Segment returns the payload of segment i, from 0 to l.Segments-1, of the superframe frame, which has the layout l.
// The result lies in frame.
func (l Layout) Segment(frame []byte, i int) []byte {
	start := l.HeaderLen + i*l.SegmentSize
	end := start + l.segmentLen(i)
	return frame[start:end:end]
}

// segmentLen returns the payload bytes of segment i.
func (l *Layout) segmentLen(i int) int { return min(l.SegmentSize, l.Payload-i*l.SegmentSize) }

// packetLen returns the length of the IP packet with payload bytes behind these headers.
func (l *Layout) packetLen(payload int) int { return l.HeaderLen - l.L3 + payload }
