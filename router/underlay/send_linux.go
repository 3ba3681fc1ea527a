package underlay

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sender is the state of WriteBatch: the arrays that sendmmsg reads, and the function that the poller calls.
type sender struct {
	// Constant after init.
	poll   func(fd uintptr) bool
	ipv6   bool
	source netip.Addr
	// control is the message that sets the source address of datagrams of source's family; empty where there is none.
	control []byte

	batch []Datagram // what WriteBatch was given
	// What is queued for the next sendmmsg: messages[done:queued], each for the element of batch in owner.
	done, queued int
	owner        [batchSize]int
	messages     [batchSize]message
	iov          [batchSize]unix.Iovec
	names        [batchSize]sockaddr
}

func (s *sender) init(ipv6 bool, source netip.Addr) {
	s.poll, s.ipv6, s.source = s.send, ipv6, source
	if source.IsValid() {
		s.control = sourceControl(source)
	}
	for i := range s.messages {
		h := &s.messages[i].header
		h.Iov = &s.iov[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&s.names[i]))
	}
}

// WriteBatch implements Conn. An element with a segment size goes out as datagrams of that size.
func (u *UDP) WriteBatch(batch []Datagram) (n int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s := &u.out
	s.batch = batch
	defer func() { s.batch = nil }()
	for i := range batch {
		d := &batch[i]
		d.Err = nil
		size := d.SegmentSize
		if size <= 0 {
			size = max(len(d.Buf), 1)
		}
		for at := 0; at == 0 || at < len(d.Buf); at += size {
			if s.queued == batchSize {
				if err := u.flush(); err != nil {
					return 0, err
				}
			}
			s.push(i, d.Addr, d.Buf[at:min(at+size, len(d.Buf))])
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

// push queues one datagram for the element i of the batch.
func (s *sender) push(i int, addr netip.AddrPort, buf []byte) {
	q := s.queued
	length, errno := put(&s.names[q], addr, s.ipv6)
	if errno != 0 {
		s.batch[i].Err = errno
		return
	}
	s.owner[q] = i
	s.iov[q].Base = unsafe.SliceData(buf)
	s.iov[q].SetLen(len(buf))
	h := &s.messages[q].header
	h.Namelen = length
	h.Control = nil
	h.SetControllen(0)
	if len(s.control) > 0 && s.source.Is4() == addr.Addr().Is4() {
		h.Control = &s.control[0]
		h.SetControllen(len(s.control))
	}
	s.queued++
}

// flush sends what is queued. The error is that of a socket that can be used no more.
func (u *UDP) flush() error {
	s := &u.out
	err := u.raw.Write(s.poll)
	s.done, s.queued = 0, 0
	if err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	return nil
}

// send calls sendmmsg until all is sent or has failed. The kernel stops at the first message that fails and tells the
// reason only when that is the first of a call: it is skipped and sending goes on behind it. send returns false to be
// called again once the socket is writable.
func (s *sender) send(fd uintptr) (done bool) {
	for s.done < s.queued {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, fd,
			uintptr(unsafe.Pointer(&s.messages[s.done])), uintptr(s.queued-s.done), unix.MSG_DONTWAIT, 0, 0)
		switch errno {
		case 0:
			s.done += int(n)
		case unix.EINTR:
		case unix.EAGAIN:
			return false
		default:
			if d := &s.batch[s.owner[s.done]]; d.Err == nil {
				d.Err = errno
			}
			s.done++
		}
	}
	return true
}

// sourceControl returns the control message that has the kernel send from source: IP_PKTINFO (ip(7)) or IPV6_PKTINFO
// (RFC 3542, section 6.2). A socket of IPv6 takes the former for mapped addresses.
func sourceControl(source netip.Addr) []byte {
	if source.Is4() {
		b := make([]byte, unix.CmsgSpace(unix.SizeofInet4Pktinfo))
		putControl(b, unix.IPPROTO_IP, unix.IP_PKTINFO, unix.SizeofInet4Pktinfo)
		ip := source.As4()
		copy(b[unix.CmsgLen(0)+4:], ip[:]) // struct in_pktinfo: ipi_ifindex, ipi_spec_dst, ipi_addr
		return b
	}
	b := make([]byte, unix.CmsgSpace(unix.SizeofInet6Pktinfo))
	putControl(b, unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo)
	ip := source.As16()
	copy(b[unix.CmsgLen(0):], ip[:]) // struct in6_pktinfo: ipi6_addr, ipi6_ifindex
	return b
}

// putControl writes a struct cmsghdr, whose length has the width of a pointer.
func putControl(b []byte, level, kind uint32, size int) {
	word := int(unsafe.Sizeof(uintptr(0)))
	if word == 8 {
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(size)))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.CmsgLen(size)))
	}
	binary.NativeEndian.PutUint32(b[word:], level)
	binary.NativeEndian.PutUint32(b[word+4:], kind)
}
