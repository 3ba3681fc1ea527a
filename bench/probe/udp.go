package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/net/ipv4"
	"golang.org/x/sys/unix"

	"weft/bench/lab"
)

// Parameters of the UDP probe.
const (
	udpBatch   = 32                     // datagrams per system call
	udpBuffer  = 8 << 20                // bytes of receive buffer: large, so that only the overlay loses datagrams
	udpDrain   = 200 * time.Millisecond // how long to receive after the last datagram was sent
	udpPause   = 60 * time.Microsecond  // sleep of the sender while no datagram is due
	udpBehind  = 5 * time.Millisecond   // the sender catches up with a delay of at most this
	udpMinSize = 8                      // bytes, for the number of the burst
)

// Flow sends datagrams from one end to another and counts those that arrive. It is for one goroutine at a time.
type Flow struct {
	sender, receiver *child
	burst            uint64
}

// Count is the result of a burst.
type Count struct {
	Sent, Received uint64 // datagrams
	// Elapsed is the duration of sending.
	Elapsed time.Duration
}

// Lost returns the share of datagrams that did not arrive (0 to 1), and 1 if none was sent.
func (c Count) Lost() float64 {
	if c.Sent == 0 {
		return 1
	}
	return 1 - float64(c.Received)/float64(c.Sent)
}

// Rate returns the received datagrams per second.
func (c Count) Rate() float64 { return float64(c.Received) / c.Elapsed.Seconds() }

// Open opens a flow of datagrams with size bytes of payload, at least 8. The caller must close it.
func Open(from, to lab.End, size int) (_ *Flow, err error) {
	if size < udpMinSize {
		return nil, fmt.Errorf("probe: datagrams of %d bytes are too small", size)
	}
	f := &Flow{}
	defer func() {
		if err != nil {
			f.Close()
		}
	}()
	if f.receiver, err = start(to, "udp-receive"); err != nil {
		return nil, err
	}
	if f.sender, err = start(from, "udp-send"); err != nil {
		return nil, err
	}
	a, err := f.receiver.ask(context.Background(), request{Addr: netip.AddrPortFrom(to.Addr, 0), Size: size})
	if err != nil {
		return nil, err
	}
	if _, err = f.sender.ask(context.Background(), request{Addr: a.Addr, Size: size}); err != nil {
		return nil, err
	}
	return f, nil
}

// Close closes the flow.
func (f *Flow) Close() {
	for _, c := range []*child{f.sender, f.receiver} {
		if c != nil {
			c.close()
		}
	}
}

// Burst sends datagrams for the given time, at a rate in datagrams per second; rate 0 means as fast as possible. It
// returns how many were sent and received, including those that arrive within 200 ms after the end.
func (f *Flow) Burst(ctx context.Context, rate float64, length time.Duration) (Count, error) {
	f.burst++
	sent, err := f.sender.ask(ctx, request{Burst: f.burst, Rate: rate, Length: length})
	if err != nil {
		return Count{}, err
	}
	select {
	case <-ctx.Done():
		return Count{}, ctx.Err()
	case <-time.After(udpDrain):
	}
	received, err := f.receiver.ask(ctx, request{Burst: f.burst})
	c := sent.Count
	c.Received = received.Count.Received
	return c, err
}

// sender sends datagrams. It is the child that sends for a Flow.
type sender struct {
	conn *net.UDPConn
	size int
}

// sendUDP opens a sender and sends a burst for each request.
func sendUDP(s *stream) error {
	r, err := s.next()
	if err != nil {
		return err
	}
	conn, err := net.DialUDP("udp4", nil, net.UDPAddrFromAddrPort(r.Addr))
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer conn.Close()
	out := sender{conn, r.Size}
	if err := s.reply(answer{}); err != nil {
		return err
	}
	for {
		r, err := s.next()
		if err != nil {
			return err
		}
		c, err := out.transmit(r)
		if err != nil {
			return err
		}
		if err := s.reply(answer{Count: c}); err != nil {
			return err
		}
	}
}

// transmit sends a burst: the datagrams that are due in small batches, with sleeps in between.
func (o sender) transmit(r request) (c Count, err error) {
	conn, list := ipv4.NewPacketConn(o.conn), messages(o.size, r.Burst)
	start := time.Now()
	defer func() { c.Elapsed = time.Since(start) }()
	due := start // when the next datagram is to be sent
	gap := time.Duration(0)
	if r.Rate > 0 {
		gap = time.Duration(float64(time.Second) / r.Rate)
	}
	for now := start; now.Sub(start) < r.Length; now = time.Now() {
		n := udpBatch
		if gap > 0 {
			if now.Sub(due) > udpBehind {
				due = now.Add(-udpBehind) // sending all missed datagrams at once would measure queues
			}
			if n = min(int(now.Sub(due)/gap), udpBatch); n == 0 {
				// Not time.Sleep, because the timers of the runtime may be a millisecond late.
				_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(udpPause)}, nil)
				continue
			}
			due = due.Add(time.Duration(n) * gap)
		}
		sent, err := conn.WriteBatch(list[:n], 0)
		if err != nil && !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.ECONNREFUSED) {
			return c, fmt.Errorf("probe: %w", err)
		}
		c.Sent += uint64(max(sent, 0))
	}
	return c, nil
}

// receiver counts the datagrams of the newest burst. It is the child that receives for a Flow.
type receiver struct {
	conn *net.UDPConn
	size int

	// Guarded by mu.
	mu    sync.Mutex
	burst uint64 // number of the newest burst
	count uint64 // its datagrams
}

// receiveUDP opens a receiver and answers each request with the number of datagrams of a burst.
func receiveUDP(s *stream) error {
	r, err := s.next()
	if err != nil {
		return err
	}
	conn, err := net.ListenUDP("udp4", net.UDPAddrFromAddrPort(r.Addr))
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer conn.Close()
	if err := growBuffer(conn); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	in := &receiver{conn: conn, size: r.Size}
	go in.receive()
	if err := s.reply(answer{Addr: conn.LocalAddr().(*net.UDPAddr).AddrPort()}); err != nil {
		return err
	}
	for {
		r, err := s.next()
		if err != nil {
			return err
		}
		if err := s.reply(answer{Count: Count{Received: in.of(r.Burst)}}); err != nil {
			return err
		}
	}
}

// receive counts datagrams until the socket is closed.
func (i *receiver) receive() {
	conn, list := ipv4.NewPacketConn(i.conn), messages(i.size, 0)
	for {
		got, err := conn.ReadBatch(list, 0)
		if err != nil {
			return
		}
		i.mu.Lock()
		for _, m := range list[:got] {
			if m.N == i.size {
				i.add(binary.BigEndian.Uint64(m.Buffers[0]))
			}
		}
		i.mu.Unlock()
	}
}

// add counts a datagram of a burst; the caller holds mu. Late datagrams of earlier bursts do not count.
func (i *receiver) add(burst uint64) {
	if burst > i.burst {
		i.burst, i.count = burst, 0
	}
	if burst == i.burst {
		i.count++
	}
}

// of returns the number of datagrams of a burst so far.
func (i *receiver) of(burst uint64) uint64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	if burst != i.burst {
		return 0
	}
	return i.count
}

// growBuffer sets the receive buffer of a socket beyond the system's limit.
func growBuffer(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) {
		set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, udpBuffer)
	})
	return errors.Join(err, set)
}

// messages returns the buffers for one system call, with the number of the burst in each.
func messages(size int, burst uint64) []ipv4.Message {
	list := make([]ipv4.Message, udpBatch)
	for i := range list {
		list[i].Buffers = [][]byte{make([]byte, size)}
		binary.BigEndian.PutUint64(list[i].Buffers[0], burst)
	}
	return list
}
