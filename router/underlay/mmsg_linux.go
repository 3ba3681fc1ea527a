package underlay

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is struct mmsghdr (recvmmsg(2)): a message header, and the number of bytes received or sent for it.
type message struct {
	header unix.Msghdr
	n      uint32
}

// sockaddr holds an address of either family.
type sockaddr = unix.RawSockaddrInet6

// put writes addr to s and returns its length. An IPv6 socket gets IPv4 addresses in their mapped form. The error is
// EAFNOSUPPORT for an IPv6 address on an IPv4 socket, and EINVAL for an invalid address.
func put(s *sockaddr, addr netip.AddrPort, ipv6 bool) (length uint32, errno unix.Errno) {
	ip := addr.Addr()
	switch {
	case !ip.IsValid() || ip.Zone() != "":
		return 0, unix.EINVAL
	case ipv6:
		*s = sockaddr{Family: unix.AF_INET6, Port: networkOrder(addr.Port()), Addr: ip.As16()}
		return unix.SizeofSockaddrInet6, 0
	case !ip.Is4() && !ip.Is4In6():
		return 0, unix.EAFNOSUPPORT
	}
	s4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(s)) // which is shorter
	*s4 = unix.RawSockaddrInet4{Family: unix.AF_INET, Port: networkOrder(addr.Port()), Addr: ip.Unmap().As4()}
	return unix.SizeofSockaddrInet4, 0
}

// addrPort returns the address that the kernel wrote to s, unmapped and without a zone, or the zero AddrPort for
// another family.
func addrPort(s *sockaddr) netip.AddrPort {
	switch s.Family {
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(s.Addr).Unmap(), networkOrder(s.Port))
	case unix.AF_INET:
		s4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(s))
		return netip.AddrPortFrom(netip.AddrFrom4(s4.Addr), networkOrder(s4.Port))
	default:
		return netip.AddrPort{}
	}
}

// networkOrder converts a port between host and network byte order; it is its own inverse.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}
