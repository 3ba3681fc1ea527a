package underlay

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiver is the state of ReadBatch: the arrays that recvmmsg fills, and the function that the poller calls.
type receiver struct {
	poll  func(fd uintptr) bool
	batch []Datagram // the part that one call fills
	n     int
	errno unix.Errno

	messages [batchSize]message
	iov      [batchSize]unix.Iovec
	names    [batchSize]sockaddr
}

func (r *receiver) init() {
	r.poll = r.receive
	for i := range r.messages {
		h := &r.messages[i].header
		h.Iov = &r.iov[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
	}
}

// ReadBatch implements Conn. It takes what one recvmmsg gives, up to 64 datagrams.
func (u *UDP) ReadBatch(batch []Datagram) (int, error) {
	batch = batch[:min(len(batch), batchSize)]
	if len(batch) == 0 {
		return 0, nil
	}
	r := &u.in
	for {
		r.prepare(batch)
		if err := u.raw.Read(r.poll); err != nil {
			return 0, fmt.Errorf("underlay: %w", err)
		}
		if r.errno != 0 {
			return 0, fmt.Errorf("underlay: receive: %w", r.errno)
		}
		if n := r.collect(); n > 0 {
			return n, nil
		}
	}
}

// prepare points the arrays at the buffers of batch.
func (r *receiver) prepare(batch []Datagram) {
	r.batch = batch
	for i := range batch {
		buf := batch[i].Buf[:cap(batch[i].Buf)]
		r.iov[i].Base = unsafe.SliceData(buf)
		r.iov[i].SetLen(len(buf))
		r.messages[i].header.Namelen = unix.SizeofSockaddrInet6
	}
}

// receive calls recvmmsg until it gives something. It returns false to be called again once the socket is readable.
func (r *receiver) receive(fd uintptr) (done bool) {
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&r.messages[0])), uintptr(len(r.batch)), unix.MSG_DONTWAIT, 0, 0)
		r.n, r.errno = int(n), errno
		switch {
		case errno == unix.EAGAIN:
			return false
		case errno == unix.EINTR, isNetwork(errno):
			continue // the kernel has taken it off the socket by telling us
		case errno != 0:
			r.n = 0
		}
		return true
	}
}

// collect cuts the buffers to what arrived and returns how many datagrams that is. Those that were cut short are left
// out; the good ones close up, each with its own buffer.
func (r *receiver) collect() (n int) {
	for i := range r.n {
		m := &r.messages[i]
		from := addrPort(&r.names[i])
		if m.header.Flags&unix.MSG_TRUNC != 0 || !from.IsValid() {
			continue
		}
		r.batch[n].Buf, r.batch[i].Buf = r.batch[i].Buf, r.batch[n].Buf
		d := &r.batch[n]
		d.Addr, d.Buf, d.SegmentSize, d.Err = from, d.Buf[:m.n], 0, nil
		n++
	}
	r.batch = nil
	return n
}

// isNetwork reports whether errno tells of something that the network reported (ICMP) about a datagram sent earlier.
func isNetwork(errno unix.Errno) bool {
	switch errno {
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.EHOSTDOWN, unix.ENETDOWN, unix.ENONET,
		unix.ENOPROTOOPT, unix.EPROTO, unix.EMSGSIZE, unix.EOPNOTSUPP, unix.EACCES, unix.ETIMEDOUT:
		return true
	default:
		return false
	}
}
