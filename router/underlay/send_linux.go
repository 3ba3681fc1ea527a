package underlay

import (
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of what one sendmmsg takes; a longer batch takes more calls.
const (
	sendMessages = 256
	sendPieces   = 4096
)

// maxRetries is how often a message is tried again after an error that may be an earlier datagram's: the kernel keeps
// one such error a socket, and the next call fails with it, whatever it sends (ip(7), IP_RECVERR). Once would do but
// for a storm of them, in which the next may come before the retry. Not counted, but up to maxAttempts, are errors that
// came while the reader was emptying the error queue: with each entry that it takes, the kernel puts up the next one's.
const (
	maxRetries  = 3
	maxAttempts = 1000
)

// sender is the state of WriteBatch, and the functions that the poller calls.
type sender struct {
	// Constant after init.
	poll     func(fd uintptr) bool
	call     func(fd uintptr, m *message, n int) (sent int, errno unix.Errno) // sendmmsg, but in tests
	ipv6     bool
	fragment bool // the kernel may: no Config.DontFragment
	stats    *counters
	errors   *errorSigns // shared with the reader

	batch             []Datagram // what WriteBatch was given
	whole             queue      // as packed; with UDP_SEGMENT while the kernel takes it
	single            queue      // the datagrams of one message that the kernel would not segment
	retries, attempts int        // of the first message pending
	resend            resend
}

// init makes the arrays. The queue single has room for all that a message can hold: cutting it makes more pieces.
func (s *sender) init(ipv6 bool, source netip.Addr) {
	s.poll, s.call, s.ipv6 = s.send, sendmmsg, ipv6
	s.whole.init(sendMessages, sendPieces, source)
	s.single.init(maxSegments, maxPieces+maxSegments, source)
	s.whole.segments, s.single.segments = 1, 1
}

// WriteBatch implements Conn. A datagram in more than 1,024 pieces cannot be sent: EMSGSIZE.
func (u *UDP) WriteBatch(batch []Datagram) (n int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := &u.out
	s.batch = batch
	defer s.forget()
	for i := range batch {
		p := start(batch, i)
		if batch[i].Err = s.check(batch[i].Addr, p.size); batch[i].Err != nil {
			s.whole.seal()
			continue
		}
		if err := u.push(p); err != nil {
			return 0, err
		}
	}
	if err := u.flush(); err != nil {
		return 0, err
	}
	for i := range batch {
		switch {
		case batch[i].Err == nil:
			n++
		case err == nil:
			err = batch[i].Err
		}
	}
	return n, err
}

// forget lets go of the caller's buffers, and of what a socket that was closed has left.
func (s *sender) forget() {
	s.batch = nil
	s.whole.reset()
	s.single.reset()
	s.retries, s.attempts, s.resend = 0, 0, resend{}
}

// push queues the element that p is at the start of. The error is that of a socket that can be used no more.
func (u *UDP) push(p position) error {
	s := &u.out
	d := &s.batch[p.elem]
	for first := true; first || p.left > 0; first = false {
		if s.whole.add(s.batch, &p, d.Addr, s.ipv6) {
			continue
		}
		if err := u.flush(); err != nil {
			return err
		}
		if !s.whole.add(s.batch, &p, d.Addr, s.ipv6) {
			d.Err = unix.EMSGSIZE // a datagram of too many pieces
			return nil
		}
	}
	return nil
}

// check returns why a datagram of size bytes cannot go to addr, whatever the network is like.
func (s *sender) check(addr netip.AddrPort, size int) error {
	var name sockaddr
	if _, errno := put(&name, addr, s.ipv6); errno != 0 {
		return errno
	}
	if size > MaxDatagram && (addr.Addr().Is4() || addr.Addr().Is4In6() || size > MaxDatagram6) {
		return unix.EMSGSIZE
	}
	return nil
}

// flush sends what is queued. The error is that of a socket that can be used no more.
func (u *UDP) flush() error {
	s := &u.out
	s.whole.finish()
	err := u.raw.Write(s.poll)
	s.whole.reset()
	s.single.reset()
	if err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	return nil
}

// send calls sendmmsg until all is sent or has failed. The kernel stops at the first message that fails and tells the
// reason only when that is the first of a call: it is dealt with, and sending goes on behind it. send returns false to be
// called again once the socket is writable.
func (s *sender) send(fd uintptr) (done bool) {
	for {
		q, n := &s.single, s.resend.next(&s.single)
		if n == 0 {
			q, n = &s.whole, s.whole.queued-s.whole.done
		}
		if n == 0 {
			return true
		}
		drains := s.errors.drains.Load()
		sent, errno := s.call(fd, &q.messages[q.done], n)
		switch {
		case errno == 0:
			s.sent(q, sent)
			if sent < n { // the kernel does not tell why, and forgets it
				s.errors.flagged.Store(true)
			}
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			return false
		case isNetwork(errno) && s.again(drains):
			continue
		case q.parts[q.done].segments > 1 && splits(errno):
			s.split(fd, errno)
		default:
			s.fail(q, fd, errno)
		}
		s.retries, s.attempts = 0, 0
		if q == &s.single {
			s.judge(fd)
		}
	}
}

// again reports whether to try again after an error that may be an earlier datagram's. drains is how often the reader had
// begun or ended to empty the error queue before.
func (s *sender) again(drains uint32) bool {
	s.errors.flagged.Store(true)
	s.attempts++
	if drains%2 == 1 || s.errors.drains.Load() != drains {
		return s.attempts < maxAttempts
	}
	s.retries++
	return s.retries <= maxRetries
}

// sent counts n messages that the kernel has taken.
func (s *sender) sent(q *queue, n int) {
	datagrams := 0
	for i := range n {
		datagrams += q.parts[q.done+i].segments
	}
	q.done += n
	s.stats.sendMessages.Add(uint64(n))
	s.stats.sendDatagrams.Add(uint64(datagrams))
}

// fail gives up the first message pending.
func (s *sender) fail(q *queue, fd uintptr, errno unix.Errno) {
	cause := s.resend.cause
	if q == &s.single && s.resend.failed(s, fd, errno) {
		return
	}
	size := q.parts[q.done].bytes
	for more := true; more; {
		s.blame(&q.parts[q.done], errno)
		q.done++
		// Of the same message the others that are as long fare alike, and cost no call.
		more = q == &s.single && (errno == unix.EMSGSIZE || errno == cause) && q.pending() && q.parts[q.done].bytes >= size
	}
}

// blame sets the error of all elements that o has a part of.
func (s *sender) blame(o *part, errno unix.Errno) {
	p := o.start
	for bytes := o.bytes; ; {
		if d := &s.batch[p.elem]; d.Err == nil {
			d.Err = errno
		}
		if bytes -= p.left; bytes <= 0 {
			return
		}
		p = start(s.batch, p.elem+1)
	}
}

func sendmmsg(fd uintptr, m *message, n int) (sent int, errno unix.Errno) {
	r, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(m)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	return int(r), errno
}
