package underlay

import "golang.org/x/sys/unix"

// resend is how the datagrams of a message that the kernel would not segment fare alone, in the queue single. What the
// kernel said has one of several causes, which only sending them tells apart:
//
//   - EMSGSIZE: a datagram is larger than the route takes. Fragments cannot be made of segments, whatever the socket
//     allows. Alone they go out in fragments, or fail, and say so each.
//   - EINVAL: the same on older kernels, where EMSGSIZE came later, or a kernel, a socket option or a device that does not
//     segment (a guest's driver of Linux 6.6.44).
//     Or the message is wrong, such as in a source address that the host has lost: alone they fail as well.
//   - EIO: a device that computes no checksums on older kernels, or a route through IPsec.
//
// After EINVAL and EIO segmentation is given up for good where the datagrams go through alone, and would have gone
// through unfragmented: to learn the latter, the first is sent with fragmentation forbidden.
type resend struct {
	cause  unix.Errno // why the message was not sent whole; 0 where there is none
	losses int        // datagrams that failed alone
	strict bool       // the first is under way, and must not be fragmented
}

// next returns how many messages of q to give to the kernel at once.
func (r *resend) next(q *queue) int {
	if r.strict && q.pending() {
		return 1
	}
	return q.queued - q.done
}

// splits reports whether the datagrams of a message that failed with errno may go through alone.
func splits(errno unix.Errno) bool {
	return errno == unix.EMSGSIZE || errno == unix.EINVAL || errno == unix.EIO
}

// split takes the first message pending apart.
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

// suspect reports whether the message may have failed for want of segmentation.
func (s *sender) suspect() bool {
	return s.whole.segments > 1 && s.resend.cause != 0 && s.resend.cause != unix.EMSGSIZE
}

// failed counts a datagram that could not be sent alone, and reports whether it is to be tried once more: where it must
// only not be sent as one.
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
	_ = setDiscover(int(fd), s.ipv6, unix.IP_PMTUDISC_DONT) // it was set so before
}

// judge is called after each step with the queue single, and draws the conclusion when that is empty.
func (s *sender) judge(fd uintptr) {
	if s.resend.strict {
		s.relax(fd) // the first is through
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
