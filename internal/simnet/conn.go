package simnet

import (
	"net"
	"net/netip"
	"sync"
	"syscall"
	"time"

	"weft/internal/poll"
	"weft/internal/signal"
	"weft/router/underlay"
)

// depth is the most datagrams that wait at a socket; further datagrams are lost, as in the kernel.
const depth = 1 << 14

// maxMerged is the most bytes of one element of a socket that merges, as in the kernel.
const maxMerged = 1<<16 - 1

var _ underlay.Conn = (*Conn)(nil)

// Conn is a socket of a Network.
type Conn struct {
	network *Network
	addr    netip.AddrPort
	closed  chan struct{}
	close   func()
	ready   signal.Chan // set if a datagram may be due
	timer   *time.Timer // adds a token when the next datagram is due; owned by the reader

	writing sync.Mutex
	joined  []byte // the pieces of a datagram; guarded by writing

	mu      sync.Mutex
	pending []packet // a heap by packet.before
	free    [][]byte // buffers to reuse
}

// packet is a datagram in flight.
type packet struct {
	due  time.Time
	seq  uint64
	from netip.AddrPort
	tos  uint8
	buf  []byte
}

func (p *packet) before(q *packet) bool {
	if !p.due.Equal(q.due) {
		return p.due.Before(q.due)
	}
	return p.seq < q.seq
}

func newConn(n *Network, addr netip.AddrPort) *Conn {
	c := &Conn{
		network: n,
		addr:    addr,
		closed:  make(chan struct{}),
		ready:   signal.New(),
	}
	c.close = sync.OnceFunc(func() {
		close(c.closed)
		n.forget(c)
		c.ready.Set()
	})
	return c
}

// LocalAddr implements underlay.Conn.
func (c *Conn) LocalAddr() netip.AddrPort { return c.addr }

// Close implements underlay.Conn.
func (c *Conn) Close() error {
	c.close()
	return nil
}

func (c *Conn) isClosed() bool {
	select {
	case <-c.closed:
		return true
	default:
		return false
	}
}

// WriteBatch implements underlay.Conn. Datagrams that the network loses count as sent.
func (c *Conn) WriteBatch(batch []underlay.Datagram) (n int, err error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	for i := range batch {
		d := &batch[i]
		d.Err = c.write(d)
		switch {
		case d.Err == nil:
			n++
		case err == nil:
			err = d.Err
		}
	}
	return n, err
}

func (c *Conn) write(d *underlay.Datagram) error {
	if !d.Addr.IsValid() || d.Addr.Addr().Zone() != "" {
		return syscall.EINVAL
	}
	whole := d.Buf
	if len(d.More) > 0 {
		c.writing.Lock()
		defer c.writing.Unlock()
		whole = append(c.joined[:0], d.Buf...)
		for _, piece := range d.More {
			whole = append(whole, piece...)
		}
		c.joined = whole
	}
	size := d.SegmentSize
	if size <= 0 {
		size = max(len(whole), 1)
	}
	if min(size, len(whole)) > underlay.MaxDatagram {
		return syscall.EMSGSIZE
	}
	for at := 0; at == 0 || at < len(whole); at += size {
		c.network.send(c.addr, d.Addr, d.TOS, whole[at:min(at+size, len(whole))])
	}
	return nil
}

// ReadBatch implements underlay.Conn.
func (c *Conn) ReadBatch(batch []underlay.Datagram) (int, error) {
	if c.isClosed() {
		return 0, net.ErrClosed
	}
	n, wait := c.receiveDue(batch)
	switch {
	case wait > 0 && c.timer == nil:
		c.timer = time.AfterFunc(wait, c.ready.Set)
	case wait > 0:
		c.timer.Reset(wait)
	}
	return n, nil
}

// Source implements underlay.Conn.
func (c *Conn) Source() poll.Source { return poll.FromChan(c.ready.C()) }

// Poll is ReadBatch that also returns the time until the next datagram is due, if none is: 0 for never. It is for
// simulations that drive many nodes in one goroutine, so that the same seed has the same outcome.
func (c *Conn) Poll(batch []underlay.Datagram) (n int, wait time.Duration) {
	return c.receiveDue(batch)
}

// receiveDue moves the datagrams that are due into batch. If none is due, wait is the time until the next one is, or 0
// for never.
func (c *Conn) receiveDue(batch []underlay.Datagram) (n int, wait time.Duration) {
	merge := c.network.merge.Load()
	c.mu.Lock()
	defer c.mu.Unlock()
	now := time.Now()
	for len(c.pending) > 0 {
		if wait = c.pending[0].due.Sub(now); wait > 0 {
			return n, wait
		}
		p := &c.pending[0]
		switch {
		case merge && n > 0 && mergeInto(&batch[n-1], p):
		case n == len(batch):
			return n, 0
		case len(p.buf) <= cap(batch[n].Buf):
			d := &batch[n]
			d.Addr, d.Buf, d.SegmentSize, d.TOS, d.Err = p.from, append(d.Buf[:0], p.buf...), 0, p.tos, nil
			n++
		}
		c.free = append(c.free, c.pop().buf)
	}
	return n, 0
}

// mergeInto appends p to the datagrams in d if a kernel could do so: it must have the same sender, the same TOS and the
// same size, or be a shorter last one.
func mergeInto(d *underlay.Datagram, p *packet) bool {
	size := d.SegmentSize
	if size == 0 {
		size = len(d.Buf)
	}
	long := len(d.Buf) + len(p.buf)
	if d.Addr != p.from || d.TOS != p.tos {
		return false
	}
	if len(p.buf) == 0 || len(p.buf) > size || len(d.Buf)%size != 0 || long > min(cap(d.Buf), maxMerged) {
		return false
	}
	d.Buf, d.SegmentSize = append(d.Buf, p.buf...), size
	return true
}

// push adds a datagram, and reports whether there was space.
func (c *Conn) push(due time.Time, seq uint64, from netip.AddrPort, tos uint8, buf []byte) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.pending) == depth {
		return false
	}
	var own []byte
	if last := len(c.free) - 1; last >= 0 {
		own, c.free = c.free[last][:0], c.free[:last]
	}
	c.pending = append(c.pending, packet{due: due, seq: seq, from: from, tos: tos, buf: append(own, buf...)})
	c.up(len(c.pending) - 1)
	c.ready.Set()
	return true
}

// pop removes the packet that is due first. The heap is implemented here because container/heap would box every packet.
func (c *Conn) pop() packet {
	first, last := c.pending[0], len(c.pending)-1
	c.pending[0] = c.pending[last]
	c.pending[last] = packet{}
	c.pending = c.pending[:last]
	for i := 0; ; {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < last; child++ {
			if c.pending[child].before(&c.pending[least]) {
				least = child
			}
		}
		if least == i {
			return first
		}
		c.pending[i], c.pending[least] = c.pending[least], c.pending[i]
		i = least
	}
}

// up moves the packet i towards the root of the heap, to its position.
func (c *Conn) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if !c.pending[i].before(&c.pending[parent]) {
			return
		}
		c.pending[i], c.pending[parent] = c.pending[parent], c.pending[i]
		i = parent
	}
}
