package probe

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
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
	send, receive *net.UDPConn
	burst         uint64
	size          int
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
func Open(from, to lab.End, size int) (*Flow, error) {
	if size < udpMinSize {
		return nil, fmt.Errorf("probe: datagrams of %d bytes are too small", size)
	}
	f := &Flow{size: size}
	err := to.Do(func() (err error) {
		f.receive, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.Addr, 0)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	err = errors.Join(growBuffer(f.receive), from.Do(func() (err error) {
		f.send, err = net.DialUDP("udp4", nil, f.receive.LocalAddr().(*net.UDPAddr))
		return err
	}))
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("probe: %w", err)
	}
	return f, nil
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

// Close closes the flow's sockets.
func (f *Flow) Close() {
	_ = f.receive.Close()
	if f.send != nil {
		_ = f.send.Close()
	}
}

// Burst sends datagrams for the given time, at a rate in datagrams per second; rate 0 means as fast as possible. It
// returns how many were sent and received, including those that arrive within 200 ms after the end.
func (f *Flow) Burst(ctx context.Context, rate float64, length time.Duration) (Count, error) {
	f.burst++
	var c Count
	counted := make(chan uint64, 1)
	if err := f.receive.SetReadDeadline(time.Time{}); err != nil {
		return c, fmt.Errorf("probe: %w", err)
	}
	go func() { counted <- f.count() }()
	start := time.Now()
	err := f.transmit(ctx, rate, start, length, &c)
	c.Elapsed = time.Since(start)
	// The deadline ends the count.
	err = errors.Join(err, f.receive.SetReadDeadline(time.Now().Add(udpDrain)))
	c.Received = <-counted
	return c, errors.Join(err, ctx.Err())
}

// messages returns the buffers for one system call, with the number of the burst in each.
func (f *Flow) messages() []ipv4.Message {
	list := make([]ipv4.Message, udpBatch)
	for i := range list {
		list[i].Buffers = [][]byte{make([]byte, f.size)}
		binary.BigEndian.PutUint64(list[i].Buffers[0], f.burst)
	}
	return list
}

// transmit sends the datagrams that are due in small batches, and sleeps in between.
func (f *Flow) transmit(ctx context.Context, rate float64, start time.Time, length time.Duration, c *Count) error {
	conn, list := ipv4.NewPacketConn(f.send), f.messages()
	due := start // when the next datagram is to be sent
	gap := time.Duration(0)
	if rate > 0 {
		gap = time.Duration(float64(time.Second) / rate)
	}
	for now := start; now.Sub(start) < length && ctx.Err() == nil; now = time.Now() {
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
			return fmt.Errorf("probe: %w", err)
		}
		c.Sent += uint64(max(sent, 0))
	}
	return nil
}

// count counts the received datagrams of this burst until the read deadline.
func (f *Flow) count() (n uint64) {
	conn, list := ipv4.NewPacketConn(f.receive), f.messages()
	for {
		got, err := conn.ReadBatch(list, 0)
		if err != nil {
			return n
		}
		for _, m := range list[:got] {
			if m.N == f.size && binary.BigEndian.Uint64(m.Buffers[0]) == f.burst {
				n++
			}
		}
	}
}
