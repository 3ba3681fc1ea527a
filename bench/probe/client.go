package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"weft/bench/lab"
)

// answerTimeout bounds the wait for one answer, because the overlay may lose packets.
const answerTimeout = 5 * time.Second

// dial connects to an echo server from the network namespace of the calling thread.
func dial(to netip.AddrPort) (*net.TCPConn, error) {
	conn, err := net.DialTCP("tcp4", nil, net.TCPAddrFromAddrPort(to))
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	return conn, conn.SetDeadline(time.Now().Add(answerTimeout))
}

// exchange sends buf as a request and reads the answer into it.
func exchange(conn net.Conn, buf []byte) error {
	if _, err := conn.Write(buf); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	if _, err := io.ReadFull(conn, buf); err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	return nil
}

// Requests sends requests to an echo server over one connection, one at a time, for the given time. It returns the round
// trip times in microseconds.
func Requests(ctx context.Context, from lab.End, to netip.AddrPort, length time.Duration) ([]float64, error) {
	var conn *net.TCPConn
	if err := from.Do(func() (err error) { conn, err = dial(to); return err }); err != nil {
		return nil, err
	}
	defer conn.Close()
	buf := make([]byte, messageSize)
	var trips []float64
	for start := time.Now(); time.Since(start) < length && ctx.Err() == nil; {
		if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
			return nil, fmt.Errorf("probe: %w", err)
		}
		sent := time.Now()
		if err := exchange(conn, buf); err != nil {
			return nil, err
		}
		trips = append(trips, float64(time.Since(sent).Nanoseconds())/1000)
	}
	return trips, ctx.Err()
}

// Connects opens connections to an echo server from the given number of concurrent clients, for the given time. It sends
// one request over each connection and resets it. It returns the number of connections per second.
func Connects(ctx context.Context, from lab.End, to netip.AddrPort, clients int, length time.Duration) (float64, error) {
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		total int
		errs  []error
	)
	start := time.Now()
	for range clients {
		group.Go(func() {
			n, err := connectUntil(ctx, from, to, start.Add(length))
			mu.Lock()
			defer mu.Unlock()
			total += n
			errs = append(errs, err)
		})
	}
	group.Wait()
	return float64(total) / time.Since(start).Seconds(), errors.Join(errs...)
}

// connectUntil opens one connection after another until end, and returns how many.
func connectUntil(ctx context.Context, from lab.End, to netip.AddrPort, end time.Time) (n int, err error) {
	err = from.Do(func() error {
		buf := make([]byte, messageSize)
		for ; time.Now().Before(end) && ctx.Err() == nil; n++ {
			conn, err := dial(to)
			if err != nil {
				return err
			}
			err = exchange(conn, buf)
			// Linger 0 sends a reset, which leaves no port in TIME_WAIT; there are only about 28,000 ports.
			_ = conn.SetLinger(0)
			_ = conn.Close()
			if err != nil {
				return err
			}
		}
		return ctx.Err()
	})
	return n, err
}
