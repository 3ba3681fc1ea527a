package underlay

import (
	"net/netip"
	"syscall"
)

// Report is what the network (ICMP) says of a datagram that was sent earlier. Where that is one of a message of many, one
// report may stand for all of them.
//
// Nobody vouches for it: whoever can guess addresses and ports can forge one. It is a hint to look again, never a
// reason to give a peer up, or to believe an MTU that no probe has confirmed.
type Report struct {
	// Addr is where the datagram was to go.
	Addr netip.AddrPort
	// Err is what the kernel made of it: ECONNREFUSED, EHOSTUNREACH, EMSGSIZE ...
	Err syscall.Errno
	// MTU is the size in bytes, IP header counted, that the reporter would have taken; 0 unless Err is EMSGSIZE. A
	// router of before RFC 1191 says 0 as well.
	MTU int
	// Offender is the host that says so. It may be this one, which gave up to look for a neighbour.
	Offender netip.Addr
}

// count adds r to the counters.
func (c *counters) count(r Report) {
	switch r.Err {
	case syscall.ECONNREFUSED:
		c.refused.Add(1)
	case syscall.EHOSTUNREACH, syscall.ENETUNREACH, syscall.EHOSTDOWN, syscall.ENETDOWN, syscall.ENONET:
		c.unreachable.Add(1)
	case syscall.EMSGSIZE:
		c.tooLong.Add(1)
	default:
		c.other.Add(1)
	}
}
