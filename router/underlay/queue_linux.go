package underlay

import (
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Bounds of one message to the kernel.
const (
	// maxSegments is UDP_MAX_SEGMENTS until Linux 6.8; newer kernels have 128.
	maxSegments = 64
	// maxPieces is UIO_MAXIOV: sendmsg(2) fails with EMSGSIZE beyond it.
	maxPieces = 1024
	// maxMerged and maxMerged6 are the most payload of a message with several segments. The kernel accepts MaxDatagram
	// and MaxDatagram6, but a message above the gso_max_size of the device, 65,536 with the Ethernet header and a VLAN
	// tag, is segmented in software before it, at twice the cost (netif_skb_features).
	maxMerged  = 65535 - 18 - 20 - 8
	maxMerged6 = 65535 - 18 - 40 - 8
)

// queue holds the messages for sendmmsg: messages[done:queued]; the last one may still grow.
type queue struct {
	// Constant after init.
	segments int // the most segments of a message: 1 without UDP_SEGMENT

	done, queued int
	pieces       int // used elements of iov
	messages     []message
	names        []sockaddr
	controls     []control
	parts        []part
	iov          []unix.Iovec
}

// part is the part of a batch in one message: datagrams from start on, of that element and the next ones.
type part struct {
	start    position
	addr     netip.AddrPort
	size     int   // of each datagram except the last
	tos      uint8 // of all datagrams
	segments int   // number of datagrams
	bytes    int   // of payload
	pieces   int   // of iov
	closed   bool  // no datagram can follow
}

func (q *queue) init(messages, pieces int, source netip.Addr) {
	q.messages, q.names = make([]message, messages), make([]sockaddr, messages)
	q.controls, q.parts = make([]control, messages), make([]part, messages)
	q.iov = make([]unix.Iovec, pieces)
	for i := range q.messages {
		q.messages[i].header.Name = (*byte)(unsafe.Pointer(&q.names[i]))
	}
	q.setSource(source)
}

// setSource sets the source address of messages; not valid: the routes choose. There must be no messages.
func (q *queue) setSource(source netip.Addr) {
	for i := range q.controls {
		q.controls[i].init(source)
	}
}

// pending reports whether there are messages to send.
func (q *queue) pending() bool { return q.done < q.queued }

// reset removes all messages.
func (q *queue) reset() { q.done, q.queued, q.pieces = 0, 0, 0 }

// seal closes the last message: the next element starts a new one.
func (q *queue) seal() {
	if q.queued > 0 {
		q.parts[q.queued-1].closed = true
	}
}

// add adds datagrams from p on: as many as fit into the last message, or else into a new one. It returns false if the
// queue is full. addr is the address of p's element, and must be one that begin can write.
func (q *queue) add(batch []Datagram, p *position, addr netip.AddrPort, ipv6 bool) (ok bool) {
	tos := batch[p.elem].TOS
	if !q.extends(p, addr, tos) && !q.begin(p, addr, tos, ipv6) {
		return false
	}
	o := &q.parts[q.queued-1]
	limit := maxMerged
	if addr.Addr().Is6() {
		limit = maxMerged6
	}
	for p.left > 0 && !o.closed {
		n := p.next()
		if o.segments == q.segments || o.segments > 0 && o.bytes+n > limit || !q.put(batch, p, n) {
			o.closed = true
			break
		}
		o.segments++
		o.bytes += n
		o.closed = n < o.size
	}
	if o.segments == 0 && o.size > 0 {
		q.queued-- // no space for the pieces of a single datagram
		return false
	}
	return true
}

// extends reports whether the datagrams of p may follow those of the last message: all must have one TOS and one size,
// except for a shorter last one.
func (q *queue) extends(p *position, addr netip.AddrPort, tos uint8) bool {
	if q.queued == 0 {
		return false
	}
	o := &q.parts[q.queued-1]
	return !o.closed && o.segments < q.segments && o.addr == addr && o.tos == tos &&
		(p.size == o.size || p.left == p.size && 0 < p.size && p.size < o.size)
}

// begin starts a message to addr.
func (q *queue) begin(p *position, addr netip.AddrPort, tos uint8, ipv6 bool) bool {
	if q.queued == len(q.messages) {
		return false
	}
	i := q.queued
	length, _ := put(&q.names[i], addr, ipv6)
	q.messages[i].header.Namelen = length
	q.parts[i] = part{start: *p, addr: addr, tos: tos, size: p.size}
	if p.size == 0 { // an empty datagram has a message of its own
		q.parts[i].segments, q.parts[i].closed = 1, true
	}
	q.queued++
	return true
}

// put adds one datagram of n bytes to the last message, or nothing if it has too many pieces.
func (q *queue) put(batch []Datagram, p *position, n int) bool {
	o := &q.parts[q.queued-1]
	first := q.pieces - o.pieces
	before, pieces, last := *p, q.pieces, unix.Iovec{}
	if o.pieces > 0 {
		last = q.iov[pieces-1]
	}
	for n > 0 {
		b := p.take(batch, n)
		n -= len(b)
		if q.pieces > first && adjoins(&q.iov[q.pieces-1], b) {
			grow(&q.iov[q.pieces-1], len(b))
			continue
		}
		if q.pieces == len(q.iov) || q.pieces-first == maxPieces {
			*p, q.pieces = before, pieces
			if o.pieces > 0 {
				q.iov[pieces-1] = last
			}
			return false
		}
		q.iov[q.pieces].Base = unsafe.SliceData(b)
		q.iov[q.pieces].SetLen(len(b))
		q.pieces++
	}
	o.pieces = q.pieces - first
	return true
}

// adjoins reports whether b lies directly behind v in memory, as frames that were read into one arena do.
func adjoins(v *unix.Iovec, b []byte) bool {
	return uintptr(unsafe.Pointer(v.Base))+uintptr(v.Len) == uintptr(unsafe.Pointer(unsafe.SliceData(b)))
}

func grow(v *unix.Iovec, n int) { v.SetLen(int(v.Len) + n) }

// finish writes the headers of all messages.
func (q *queue) finish() {
	at := 0
	for i := range q.queued {
		h, o := &q.messages[i].header, &q.parts[i]
		h.Iov = nil
		if o.pieces > 0 {
			h.Iov = &q.iov[at]
		}
		h.SetIovlen(o.pieces)
		at += o.pieces
		size := 0
		if o.segments > 1 {
			size = o.size
		}
		q.controls[i].set(h, size, o.tos, o.addr.Addr())
	}
}
