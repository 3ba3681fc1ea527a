package underlay

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveMessages is the most messages of one recvmmsg.
const receiveMessages = 64

// receiver is the state of ReadBatch: the arrays that recvmmsg fills, and the function that calls it.
type receiver struct {
	// Constant after init.
	read  func(fd uintptr)
	stats *counters

	batch    []Datagram // the part that one call can fill
	n        int
	errno    unix.Errno
	errors   errorQueue
	messages [receiveMessages]message
	iov      [receiveMessages]unix.Iovec
	names    [receiveMessages]sockaddr
	controls [receiveMessages][receiveControl]byte
}

func (r *receiver) init(stats *counters, handler ReportHandler) {
	r.read, r.stats = r.receive, stats
	r.errors.init(handler)
	for i := range r.messages {
		h := &r.messages[i].header
		h.Iov = &r.iov[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = &r.controls[i][0]
	}
}

// ReadBatch implements Conn. It returns the result of one recvmmsg, up to 64 elements. If Features has GRO, an element
// may hold up to 64 KiB of datagrams.
func (u *UDP) ReadBatch(batch []Datagram) (int, error) {
	batch = batch[:min(len(batch), receiveMessages)]
	if len(batch) == 0 {
		return 0, nil
	}
	r := &u.in
	for {
		r.prepare(batch)
		if err := u.file.Control(r.read); err != nil {
			return 0, fmt.Errorf("underlay: %w", err)
		}
		if r.errno != 0 {
			return 0, fmt.Errorf("underlay: receive: %w", r.errno)
		}
		if n := r.collect(); n > 0 || r.n == 0 {
			return n, nil
		}
	}
}

// prepare points the arrays at the buffers of batch.
func (r *receiver) prepare(batch []Datagram) {
	r.batch, r.n, r.errno = batch, 0, 0
	for i := range batch {
		buf := batch[i].Buf[:cap(batch[i].Buf)]
		r.iov[i].Base = unsafe.SliceData(buf)
		r.iov[i].SetLen(len(buf))
		h := &r.messages[i].header
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(len(r.controls[i]))
	}
}

// receive calls recvmmsg until it has a result, or there is nothing to read. The call never blocks, so the scheduler need not know of it
// (RawSyscall); docs/adr/0045-one-loop-a-queue.md has what that saves.
//
// A socket with errors in its queue is readable, and they use space of the receive buffer. They are removed when there is nothing else, so
// that every wake-up has a new cause.
func (r *receiver) receive(fd uintptr) {
	if f := &r.errors.signs.flagged; f.Load() && f.Swap(false) {
		r.errors.drain(fd, r.stats)
	}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&r.messages[0])), uintptr(len(r.batch)), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			r.n = int(n)
			return
		case errno == unix.EAGAIN:
			if more := r.errors.drain(fd, r.stats); !more {
				return
			}
		case isNetwork(errno): // the kernel has cleared the error by returning it
			r.errors.drain(fd, r.stats)
		case errno != unix.EINTR:
			r.errno = errno
			return
		}
	}
}

// collect sets the lengths of the buffers and returns the number of elements. It leaves out truncated messages; the
// others move up, each with its own buffer.
func (r *receiver) collect() (n int) {
	datagrams, truncated := 0, 0
	for i := range r.n {
		m := &r.messages[i]
		from := addrPort(&r.names[i])
		size, tos := parseControl(r.controls[i][:m.header.Controllen])
		if size <= 0 || size >= int(m.n) {
			size = 0
			datagrams++
		} else {
			datagrams += (int(m.n) + size - 1) / size
		}
		if m.header.Flags&unix.MSG_TRUNC != 0 || !from.IsValid() {
			truncated++
			continue
		}
		r.batch[n].Buf, r.batch[i].Buf = r.batch[i].Buf, r.batch[n].Buf
		d := &r.batch[n]
		d.Addr, d.Buf, d.SegmentSize, d.TOS, d.Err = from, d.Buf[:m.n], size, tos, nil
		n++
	}
	r.stats.receiveMessages.Add(uint64(r.n))
	r.stats.receiveDatagrams.Add(uint64(datagrams))
	r.stats.truncated.Add(uint64(truncated))
	r.batch = nil
	return n
}

// isNetwork reports whether errno is an error that the network reported (ICMP) about a datagram sent earlier.
func isNetwork(errno unix.Errno) bool {
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.ENONET,
		unix.ENOPROTOOPT, unix.EPROTO, unix.EMSGSIZE, unix.EOPNOTSUPP, unix.EACCES, unix.ETIMEDOUT:
		return true
	default:
		return false
	}
}
