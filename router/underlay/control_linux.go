package underlay

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// control is the buffer of the control messages of one message: the segment size (UDP_SEGMENT, udp(7)), the TOS, then the
// source address. Each may be left out.
type control struct {
	source netip.Addr // invalid: the routes choose
	length int        // of from; 0 without a source
	from   [40]byte   // the control message of the source
	buf    [24 + 24 + 40]byte
}

// init writes the control message of the source. A source is set with IP_PKTINFO (ip(7)) or IPV6_PKTINFO (RFC 3542, section
// 6.2); an IPv6 socket accepts the former for mapped addresses.
func (c *control) init(source netip.Addr) {
	c.source, c.length = source, 0
	b := c.from[:]
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

// set sets the control messages of h for a message to addr: the segment size, which is 0 for a single datagram, the TOS,
// and the source if it has addr's family. TOS 0 needs no control message, as it is the default of the socket.
//
// The TOS has the option of addr's family, IP_TOS (ip(7)) or IPV6_TCLASS (RFC 3542, section 6.5): for a mapped address the
// kernel reads only the former, although the socket is an IPv6 socket.
func (c *control) set(h *unix.Msghdr, size int, tos uint8, addr netip.Addr) {
	n := 0
	if size > 0 {
		putControl(c.buf[:], unix.SOL_UDP, unix.UDP_SEGMENT, 2)
		binary.NativeEndian.PutUint16(c.buf[unix.CmsgLen(0):], uint16(size))
		n = unix.CmsgSpace(2)
	}
	if tos != 0 {
		if addr.Is4() || addr.Is4In6() {
			putControl(c.buf[n:], unix.IPPROTO_IP, unix.IP_TOS, 4)
		} else {
			putControl(c.buf[n:], unix.IPPROTO_IPV6, unix.IPV6_TCLASS, 4)
		}
		binary.NativeEndian.PutUint32(c.buf[n+unix.CmsgLen(0):], uint32(tos))
		n += unix.CmsgSpace(4)
	}
	if c.length > 0 && c.source.Is4() == addr.Is4() {
		n += copy(c.buf[n:], c.from[:c.length])
	}
	h.Control = nil
	if n > 0 {
		h.Control = &c.buf[0]
	}
	h.SetControllen(n)
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

// receiveControl is room in bytes for the control messages of a received message: the segment size and the TOS.
const receiveControl = 24 + 24

// parseControl reads the control messages b of a received message: the size of the datagrams in it, 0 for a single one
// (UDP_GRO, udp(7)), and their TOS. The kernel writes the TOS of IPv4 as one byte (IP_RECVTOS, ip(7)), and that of IPv6 as an int
// (IPV6_RECVTCLASS, RFC 3542, section 6.5). It merges only datagrams with the same TOS (inet_gro_receive, ipv6_gro_receive).
func parseControl(b []byte) (size int, tos uint8) {
	for {
		level, kind, data, rest, ok := nextControl(b)
		switch {
		case !ok:
			return size, tos
		case level == unix.SOL_UDP && kind == unix.UDP_GRO && len(data) >= 4:
			size = int(int32(binary.NativeEndian.Uint32(data)))
		case level == unix.IPPROTO_IP && kind == unix.IP_TOS && len(data) >= 1:
			tos = data[0]
		case level == unix.IPPROTO_IPV6 && kind == unix.IPV6_TCLASS && len(data) >= 4:
			tos = uint8(binary.NativeEndian.Uint32(data))
		}
		b = rest
	}
}
