package underlay

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// message is struct mmsghdr (recvmmsg(2)): a message header, and how many bytes the kernel received or sent for it.
type message struct {
	header unix.Msghdr
	n      uint32
}

// sockaddr has room for an address of either family.
type sockaddr = unix.RawSockaddrInet6

// put writes addr to s and returns its length. A socket of IPv6 is given IPv4 addresses in their mapped form. The
// error is EAFNOSUPPORT for an address of IPv6 where the socket is of IPv4, and EINVAL for none at all.
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

// addrPort returns the address that the kernel wrote to s, unmapped and without a zone; the zero AddrPort for an
// address of no family of ours.
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

// networkOrder turns a port around between the host's order and the network's; it is its own inverse.
func networkOrder(port uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], port)
	return binary.NativeEndian.Uint16(b[:])
}
