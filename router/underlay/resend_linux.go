package underlay

import "golang.org/x/sys/unix"

// resend is the state of sending, one by one, the datagrams of a message that the kernel refused to segment; they are
// in the queue single. The error has several possible causes, which only the result of sending them distinguishes:
//
//   - EMSGSIZE: a datagram is larger than the MTU of the route. The kernel does not fragment segments, whatever the socket
//     allows. Single datagrams are fragmented, or each fails.
//   - EINVAL: the same on older kernels, or a kernel, a socket option or a device that does not segment (a guest's driver of
//     Linux 6.6.44). Or the message is invalid, for example because of a source address that the host has lost: then single
//     datagrams fail as well.
//   - EIO: a device without checksum offload on older kernels, or a route through IPsec.
//
// After EINVAL and EIO, segmentation is disabled if all single datagrams can be sent without fragmentation. To know the
// latter, the first one is sent with fragmentation forbidden.
type resend struct {
	cause  unix.Errno // the error of the message; 0 if there is none
	losses int        // single datagrams that failed
	strict bool       // the first datagram is being sent, without fragmentation
}

// next returns the number of messages of q for the next system call.
func (r *resend) next(q *queue) int {
	if r.strict && q.pending() {
		return 1
	}
	return q.queued - q.done
}

// splits reports whether the datagrams of a message that failed with errno may succeed one by one.
func splits(errno unix.Errno) bool {
	return errno == unix.EMSGSIZE || errno == unix.EINVAL || errno == unix.EIO
}

// split puts the datagrams of the first pending message into the queue single.
func (s *sender) split(fd uintptr, cause unix.Errno) {
	whole, q := &s.whole, &s.single
	o := &whole.parts[whole.done]
	q.reset()
	p := o.start
	for range o.segments {
		if p.left == 0 {
			p = start(s.batch, p.elem+1)
		}
		q.add(s.batch, &p, o.addr, s.ipv6)
	}
	q.finish()
	whole.done++
	s.stats.unsegmented.Add(1)
	s.resend = resend{cause: cause}
	if s.suspect() && s.fragment {
		s.resend.strict = setDiscover(int(fd), s.ipv6, unix.IP_PMTUDISC_DO) == nil
	}
}

// suspect reports whether the message may have failed because the kernel or the device does not segment.
func (s *sender) suspect() bool {
	return s.whole.segments > 1 && s.resend.cause != 0 && s.resend.cause != unix.EMSGSIZE
}

// failed counts a single datagram that could not be sent, and reports whether to retry it: if it failed only because
// fragmentation was forbidden.
func (r *resend) failed(s *sender, fd uintptr, errno unix.Errno) (again bool) {
	r.losses++
	if !r.strict {
		return false
	}
	s.relax(fd)
	return errno == unix.EMSGSIZE
}

// relax allows fragmentation again.
func (s *sender) relax(fd uintptr) {
	s.resend.strict = false
	_ = setDiscover(int(fd), s.ipv6, unix.IP_PMTUDISC_DONT) // the value that it had before
}

// judge is called after each system call for the queue single. When the queue is empty, it decides whether to disable
// segmentation.
func (s *sender) judge(fd uintptr) {
	if s.resend.strict {
		s.relax(fd) // the first datagram was sent
	}
	if s.single.pending() {
		return
	}
	if s.suspect() && s.resend.losses == 0 {
		s.whole.segments = 1
		s.stats.gsoDisabled.Add(1)
	}
	s.resend = resend{}
}
