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

// Sizes of the UDP probe.
const (
	udpBatch  = 32      // datagrams a system call
	udpBuffer = 8 << 20 // of the receiving socket, so that losses are the overlay's
	udpDrain  = 200 * time.Millisecond
	udpPause  = 60 * time.Microsecond // between looks at the clock
	udpBehind = 5 * time.Millisecond  // how much of a delay is made up for
	udpLeast  = 8                     // bytes, for the number of the burst
)

// Flow sends datagrams from one end to another and counts what arrives. It is used by one goroutine at a time.
type Flow struct {
	send, receive *net.UDPConn
	burst         uint64
	size          int
}

// Count is what became of a burst.
type Count struct {
	Sent, Received uint64
	// Elapsed is how long sending took.
	Elapsed time.Duration
}

// Lost returns the share of datagrams that did not arrive.
func (c Count) Lost() float64 {
	if c.Sent == 0 {
		return 1
	}
	return 1 - float64(c.Received)/float64(c.Sent)
}

// Rate returns the datagrams a second that arrived.
func (c Count) Rate() float64 { return float64(c.Received) / c.Elapsed.Seconds() }

// Open opens a flow of datagrams with so many bytes of payload, at least 8. It must be closed.
func Open(from, to lab.End, size int) (*Flow, error) {
	if size < udpLeast {
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

// growBuffer gives a socket a receive buffer beyond the system's limit.
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

// Burst sends for a time at a rate in datagrams a second, 0 meaning as many as it can, and returns what arrived of
// them, those under way at the end included.
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
	// The deadline is what ends the counting.
	err = errors.Join(err, f.receive.SetReadDeadline(time.Now().Add(udpDrain)))
	c.Received = <-counted
	return c, errors.Join(err, ctx.Err())
}

// messages returns buffers for a system call.
func (f *Flow) messages() []ipv4.Message {
	list := make([]ipv4.Message, udpBatch)
	for i := range list {
		list[i].Buffers = [][]byte{make([]byte, f.size)}
		binary.BigEndian.PutUint64(list[i].Buffers[0], f.burst)
	}
	return list
}

// transmit sends in small batches what is due, and sleeps in between.
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
				due = now.Add(-udpBehind) // a burst of all that was missed would measure queues
			}
			if n = min(int(now.Sub(due)/gap), udpBatch); n == 0 {
				// Not time.Sleep: the runtime's timers may be a millisecond late.
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

// count counts datagrams of this burst until the deadline.
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
