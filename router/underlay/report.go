package underlay

import (
	"net/netip"
	"syscall"
)

// ReportHandler handles Reports. The goroutine that reads from the socket calls HandleReport, at the rate of the
// network: it must not block, and should only count or set flags.
type ReportHandler interface {
	HandleReport(r Report)
}

// Report is an error that the network reports (ICMP) about a datagram sent earlier. One report may stand for all
// datagrams of a message.
//
// Reports are not authenticated: a host that can guess addresses and ports can forge them. A report is a reason to
// check a peer, never to give it up, or to use an MTU that no probe has confirmed.
type Report struct {
	// Addr is the destination of the datagram.
	Addr netip.AddrPort
	// Err is the kernel's error for the report: ECONNREFUSED, EHOSTUNREACH, EMSGSIZE ...
	Err syscall.Errno
	// MTU is the largest size in bytes that the reporter can forward, IP header included; 0 unless Err is EMSGSIZE.
	// Routers older than RFC 1191 report 0 as well.
	MTU int
	// Offender is the host that sent the report. It may be this host, if it did not find a neighbor.
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
