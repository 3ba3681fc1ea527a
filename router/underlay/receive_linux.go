package underlay

import (
	"errors"
	"fmt"
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// receiveMessages is how many messages one recvmmsg gives at most.
const receiveMessages = 64

// blindWait is how long in milliseconds a read waits at a time while the runtime's poller refuses to.
const blindWait = 10

// receiver is the state of ReadBatch: the arrays that recvmmsg fills, and the functions that the poller calls.
type receiver struct {
	// Constant after init.
	poll  func(fd uintptr) bool
	blind func(fd uintptr)
	stats *counters

	batch    []Datagram // the part that one call fills
	n        int
	errno    unix.Errno
	errors   errorQueue
	waiting  [1]unix.PollFd
	messages [receiveMessages]message
	iov      [receiveMessages]unix.Iovec
	names    [receiveMessages]sockaddr
	controls [receiveMessages][24]byte
}

func (r *receiver) init(stats *counters, onError func(Report)) {
	r.poll, r.blind, r.stats = r.receive, r.receiveBlind, stats
	r.errors.init(onError)
	for i := range r.messages {
		h := &r.messages[i].header
		h.Iov = &r.iov[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&r.names[i]))
		h.Control = &r.controls[i][0]
	}
}

// ReadBatch implements Conn. It takes what one recvmmsg gives, up to 64 elements. Where Features has GRO, an element
// may hold up to 64 KiB of datagrams.
func (u *UDP) ReadBatch(batch []Datagram) (int, error) {
	batch = batch[:min(len(batch), receiveMessages)]
	if len(batch) == 0 {
		return 0, nil
	}
	r := &u.in
	for {
		r.prepare(batch)
		if err := u.wait(); err != nil {
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

// wait calls receive until it has something, or for a while.
//
// The runtime's poller takes a descriptor of which epoll says nothing but EPOLLERR for one that cannot be polled, and
// refuses to wait for it until the next event. That is the state of a socket with an error in its queue, nothing to read,
// and a send buffer more than half full. Reading then takes the error off the socket, but no event tells so: until there
// is one, the read waits by itself.
func (u *UDP) wait() error {
	err := u.raw.Read(u.in.poll)
	if err == nil || errors.Is(err, net.ErrClosed) {
		return err
	}
	return u.raw.Control(u.in.blind)
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

// receive calls recvmmsg until it gives something. It returns false to be called again once the socket is readable.
//
// Errors in the queue count as readable, and take room in the receive buffer: they are taken out before each sleep, so
// that every wake-up comes from something new.
func (r *receiver) receive(fd uintptr) (done bool) {
	if f := &r.errors.signs.flagged; f.Load() && f.Swap(false) {
		r.errors.drain(fd, r.stats)
	}
	for {
		n, _, errno := unix.Syscall6(unix.SYS_RECVMMSG, fd,
			uintptr(unsafe.Pointer(&r.messages[0])), uintptr(len(r.batch)), unix.MSG_DONTWAIT, 0, 0)
		switch {
		case errno == 0:
			r.n, r.errno = int(n), 0
			return true
		case errno == unix.EAGAIN:
			if more := r.errors.drain(fd, r.stats); !more {
				return false
			}
		case isNetwork(errno): // the kernel has taken it off the socket by telling us
			r.errors.drain(fd, r.stats)
		case errno != unix.EINTR:
			r.n, r.errno = 0, errno
			return true
		}
	}
}

// receiveBlind is receive with a wait of its own, which ends early only where there is something to read.
func (r *receiver) receiveBlind(fd uintptr) {
	if r.receive(fd) {
		return
	}
	r.waiting[0] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	if _, err := unix.Poll(r.waiting[:], blindWait); err == nil {
		r.receive(fd)
	}
}

// collect cuts the buffers to what arrived and returns how many elements that is. Those that were cut short are left
// out; the good ones close up, each with its own buffer.
func (r *receiver) collect() (n int) {
	datagrams, truncated := 0, 0
	for i := range r.n {
		m := &r.messages[i]
		from := addrPort(&r.names[i])
		size := segmentSize(r.controls[i][:m.header.Controllen])
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
		d.Addr, d.Buf, d.SegmentSize, d.Err = from, d.Buf[:m.n], size, nil
		n++
	}
	r.stats.receiveMessages.Add(uint64(r.n))
	r.stats.receiveDatagrams.Add(uint64(datagrams))
	r.stats.truncated.Add(uint64(truncated))
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
