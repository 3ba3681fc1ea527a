package underlay

import (
	"fmt"
	"net"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"

	"weft/internal/poll"
)

// Bounds of one sendmmsg; a longer batch needs more calls.
const (
	sendMessages = 256
	sendPieces   = 4096
)

// maxRetries is how often a message is retried after an error that an earlier datagram may have caused: the kernel
// stores one such error for each socket, and the next call fails with it, whatever it sends (ip(7), IP_RECVERR). One
// retry is enough unless so many errors arrive that the next one comes before the retry. Errors while the reader
// empties the error queue are not counted, but bounded by maxAttempts: with each entry that the reader removes, the
// kernel sets the error of the next one.
const (
	maxRetries  = 3
	maxAttempts = 1000
)

// sender is the state of WriteBatch, and the functions that send.
type sender struct {
	// Constant after init.
	file     *poll.File
	write    func(fd uintptr)
	call     func(fd uintptr, m *message, n int) (sent int, errno unix.Errno) // sendmmsg, except in tests
	ipv6     bool
	fragment bool // the kernel may fragment: no Config.DontFragment
	stats    *counters
	errors   *errorSigns // shared with the reader

	batch             []Datagram // the argument of WriteBatch
	whole             queue      // packed messages, with UDP_SEGMENT while the kernel supports it
	single            queue      // the datagrams of one message that the kernel refused to segment
	retries, attempts int        // of the first pending message
	resend            resend
}

// init makes the arrays. The queue single has space for all datagrams of one message, which have more pieces than the
// message.
func (s *sender) init(ipv6 bool, source netip.Addr, file *poll.File) {
	s.file, s.write, s.call, s.ipv6 = file, s.send, sendmmsg, ipv6
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

// forget drops the references to the caller's buffers, and the messages that a closed socket did not send.
func (s *sender) forget() {
	s.batch = nil
	s.whole.reset()
	s.single.reset()
	s.retries, s.attempts, s.resend = 0, 0, resend{}
}

// push queues the element at p. The error means that the socket cannot be used any more.
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
			d.Err = unix.EMSGSIZE // a datagram with too many pieces
			return nil
		}
	}
	return nil
}

// check returns why a datagram of size bytes cannot be sent to addr on any network.
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

// flush sends the queued messages. The error means that the socket cannot be used any more.
func (u *UDP) flush() error {
	s := &u.out
	s.whole.finish()
	err := u.file.Control(s.write)
	s.whole.reset()
	s.single.reset()
	if err == nil && u.file.IsClosed() {
		err = net.ErrClosed // perhaps before all was sent
	}
	if err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	return nil
}

// send calls sendmmsg until all messages are sent or have failed. The kernel stops at the first message that fails, and
// returns the error only if that message is the first of the call: send handles the error and goes on behind the
// message. It waits when the send buffer is full.
func (s *sender) send(fd uintptr) {
	for {
		q, n := &s.single, s.resend.next(&s.single)
		if n == 0 {
			q, n = &s.whole, s.whole.queued-s.whole.done
		}
		if n == 0 {
			return
		}
		drains := s.errors.drains.Load()
		sent, errno := s.call(fd, &q.messages[q.done], n)
		switch {
		case errno == 0:
			s.sent(q, sent)
			if sent < n { // the kernel does not return the error, and drops it
				s.errors.flagged.Store(true)
			}
		case errno == unix.EINTR:
			continue
		case errno == unix.EAGAIN:
			if !s.file.WaitWritable() {
				return // closed
			}
			continue
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

// again reports whether to retry after an error that an earlier datagram may have caused. drains is the value of
// errorSigns.drains before the call.
func (s *sender) again(drains uint32) bool {
	s.errors.flagged.Store(true)
	s.attempts++
	if drains%2 == 1 || s.errors.drains.Load() != drains {
		return s.attempts < maxAttempts
	}
	s.retries++
	return s.retries <= maxRetries
}

// sent counts n messages as sent.
func (s *sender) sent(q *queue, n int) {
	datagrams := 0
	for i := range n {
		datagrams += q.parts[q.done+i].segments
	}
	q.done += n
	s.stats.sendMessages.Add(uint64(n))
	s.stats.sendDatagrams.Add(uint64(datagrams))
}

// fail removes the first pending message and sets the errors of its elements.
func (s *sender) fail(q *queue, fd uintptr, errno unix.Errno) {
	cause := s.resend.cause
	if q == &s.single && s.resend.failed(s, fd, errno) {
		return
	}
	size := q.parts[q.done].bytes
	for more := true; more; {
		s.blame(&q.parts[q.done], errno)
		q.done++
		// The other datagrams of the message with the same length would fail as well, and need no call.
		more = q == &s.single && (errno == unix.EMSGSIZE || errno == cause) && q.pending() && q.parts[q.done].bytes >= size
	}
}

// blame sets the error of all elements that are partly in o.
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

// sendmmsg never blocks, as receive does not.
func sendmmsg(fd uintptr, m *message, n int) (sent int, errno unix.Errno) {
	r, _, errno := unix.RawSyscall6(unix.SYS_SENDMMSG, fd, uintptr(unsafe.Pointer(m)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	return int(r), errno
}
