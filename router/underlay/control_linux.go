package underlay

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// segmentSpace is the length of the control message with the segment size, padding included.
var segmentSpace = unix.CmsgSpace(2)

// control is the buffer of the control messages of one message: the segment size (UDP_SEGMENT, udp(7)), then the source
// address. Either may be left out.
type control struct {
	source netip.Addr // invalid: the routes choose
	length int        // of the control message behind the segment size
	buf    [24 + 40]byte
}

// init writes all but the segment size. A source is set with IP_PKTINFO (ip(7)) or IPV6_PKTINFO (RFC 3542, section 6.2); an
// IPv6 socket accepts the former for mapped addresses.
func (c *control) init(source netip.Addr) {
	c.source, c.length = source, 0
	putControl(c.buf[:], unix.SOL_UDP, unix.UDP_SEGMENT, 2)
	b := c.buf[segmentSpace:]
	switch {
	case !source.IsValid():
	case source.Is4():
		putControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		ip := source.As4()
		copy(b[unix.CmsgLen(0)+4:], ip[:]) // struct in_pktinfo: ipi_ifindex, ipi_spec_dst, ipi_addr
		c.length = unix.CmsgSpace(unix.SizeofInet4Pktinfo)
	default:
		putControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
		ip := source.As16()
		copy(b[unix.CmsgLen(0):], ip[:]) // struct in6_pktinfo: ipi6_addr, ipi6_ifindex
		c.length = unix.CmsgSpace(unix.SizeofInet6Pktinfo)
	}
}

// set sets the control messages of h for a message to addr: the segment size, which is 0 for a single datagram, and the
// source if it has addr's family.
func (c *control) set(h *unix.Msghdr, size int, addr netip.Addr) {
	from, to := segmentSpace, segmentSpace
	if size > 0 {
		binary.NativeEndian.PutUint16(c.buf[unix.CmsgLen(0):], uint16(size))
		from = 0
	}
	if c.length > 0 && c.source.Is4() == addr.Is4() {
		to += c.length
	}
	h.Control = nil
	if from < to {
		h.Control = &c.buf[from]
	}
	h.SetControllen(to - from)
}

// putControl writes a struct cmsghdr; its length field has the width of a pointer.
func putControl(b []byte, level, kind uint32, size int) {
	word := int(unsafe.Sizeof(uintptr(0)))
	if word == 8 {
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(size)))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.CmsgLen(size)))
	}
	binary.NativeEndian.PutUint32(b[word:], level)
	binary.NativeEndian.PutUint32(b[word+4:], kind)
}

// nextControl returns the first control message of b and the bytes behind it; ok is false if there is none.
func nextControl(b []byte) (level, kind uint32, data, rest []byte, ok bool) {
	word, head := int(unsafe.Sizeof(uintptr(0))), unix.CmsgLen(0)
	if len(b) < head {
		return 0, 0, nil, nil, false
	}
	length := uint64(binary.NativeEndian.Uint32(b))
	if word == 8 {
		length = binary.NativeEndian.Uint64(b)
	}
	if length < uint64(head) || length > uint64(len(b)) {
		return 0, 0, nil, nil, false
	}
	n := int(length)
	level, kind = binary.NativeEndian.Uint32(b[word:]), binary.NativeEndian.Uint32(b[word+4:])
	return level, kind, b[head:n], b[min(len(b), unix.CmsgSpace(n-head)):], true
}

// segmentSize returns the size of the datagrams in a message received with the control messages b, 0 for a single one
// (UDP_GRO, udp(7)).
func segmentSize(b []byte) int {
	for {
		level, kind, data, rest, ok := nextControl(b)
		if !ok {
			return 0
		}
		if level == unix.SOL_UDP && kind == unix.UDP_GRO && len(data) >= 4 {
			return int(int32(binary.NativeEndian.Uint32(data)))
		}
		b = rest
	}
}
