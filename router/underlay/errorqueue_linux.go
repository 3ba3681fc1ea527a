package underlay

import (
	"encoding/binary"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// errorMessages is the most errors of one system call. errorCalls is the most such calls before the reader reads
// datagrams again.
const (
	errorMessages = 16
	errorCalls    = 4
)

// errorSigns is the state of the error queue that the reader and the writers share; any goroutine may use it.
type errorSigns struct {
	flagged atomic.Bool   // a writer got an error that the queue explains
	drains  atomic.Uint32 // increased when the reader begins and ends to empty the queue: odd in between
}

// errorQueue reads the queue in which the kernel stores the reports about sent datagrams (ip(7), IP_RECVERR; that of an
// IPv6 socket has both families).
type errorQueue struct {
	signs    errorSigns
	handler  ReportHandler // or nil
	messages [errorMessages]message
	names    [errorMessages]sockaddr
	controls [errorMessages][128]byte
}

func (q *errorQueue) init(handler ReportHandler) {
	q.handler = handler
	for i := range q.messages {
		h := &q.messages[i].header
		h.Name = (*byte)(unsafe.Pointer(&q.names[i]))
		h.Control = &q.controls[i][0]
	}
}

// drain removes errors from the queue of fd, and reports whether there may be more.
func (q *errorQueue) drain(fd uintptr, stats *counters) (more bool) {
	q.signs.drains.Add(1)
	defer q.signs.drains.Add(1)
	for range errorCalls {
		n := q.receive(fd)
		for i := range n {
			h := &q.messages[i].header
			r, ok := parseReport(&q.names[i], q.controls[i][:h.Controllen])
			if !ok {
				continue
			}
			stats.count(r)
			if q.handler != nil {
				q.handler.HandleReport(r)
			}
		}
		if n < errorMessages {
			return false
		}
	}
	return true
}

// receive fills the arrays and returns the number of errors. It does not read the datagrams that the kernel returns
// with them.
func (q *errorQueue) receive(fd uintptr) int {
	for i := range q.messages {
		h := &q.messages[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(len(q.controls[i]))
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd, uintptr(unsafe.Pointer(&q.messages[0])), errorMessages,
			unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			return int(n)
		case unix.EINTR:
		default:
			return 0
		}
	}
}

// Layout of struct sock_extended_err; the address of the reporter follows it.
const (
	extendedErrLen = 16
	errOrigin      = 4
	errInfo        = 8
)

// parseReport reads one entry of the error queue: name is the destination of the datagram. ok is false for entries of
// another kind, such as timestamps, and for errors of this host's own stack, which WriteBatch returned.
func parseReport(name *sockaddr, b []byte) (r Report, ok bool) {
	for {
		level, kind, data, rest, more := nextControl(b)
		if !more {
			return Report{}, false
		}
		b = rest
		v4 := level == unix.IPPROTO_IP && kind == unix.IP_RECVERR
		v6 := level == unix.IPPROTO_IPV6 && kind == unix.IPV6_RECVERR
		if !v4 && !v6 || len(data) < extendedErrLen {
			continue
		}
		switch data[errOrigin] {
		case unix.SO_EE_ORIGIN_ICMP, unix.SO_EE_ORIGIN_ICMP6:
		default:
			continue
		}
		r = Report{
			Addr:     addrPort(name),
			Err:      unix.Errno(binary.NativeEndian.Uint32(data)),
			Offender: offender(data[extendedErrLen:]),
		}
		if r.Err == unix.EMSGSIZE {
			r.MTU = int(min(binary.NativeEndian.Uint32(data[errInfo:]), 1<<16))
		}
		return r, true
	}
}

// offender returns the address in the struct sockaddr b, if there is one.
func offender(b []byte) netip.Addr {
	var s sockaddr
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&s)), unsafe.Sizeof(s)), b)
	return addrPort(&s).Addr()
}
