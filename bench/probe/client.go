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

// dial connects to an echo server.
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
	a, err := once(ctx, from, "requests", request{Addr: to, Length: length})
	return a.Trips, err
}

// sendRequests is the child of Requests.
func sendRequests(s *stream) error {
	r, err := s.next()
	if err != nil {
		return err
	}
	conn, err := dial(r.Addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	buf := make([]byte, messageSize)
	trips := []float64{}
	for start := time.Now(); time.Since(start) < r.Length; {
		if err := conn.SetDeadline(time.Now().Add(answerTimeout)); err != nil {
			return fmt.Errorf("probe: %w", err)
		}
		sent := time.Now()
		if err := exchange(conn, buf); err != nil {
			return err
		}
		trips = append(trips, float64(time.Since(sent).Nanoseconds())/1000)
	}
	return s.reply(answer{Trips: trips})
}

// Connects opens connections to an echo server from the given number of concurrent clients, for the given time. It sends
// one request over each connection and resets it. It returns the number of connections per second.
func Connects(ctx context.Context, from lab.End, to netip.AddrPort, clients int, length time.Duration) (float64, error) {
	a, err := once(ctx, from, "connects", request{Addr: to, Clients: clients, Length: length})
	return a.PerSecond, err
}

// openConnections is the child of Connects.
func openConnections(s *stream) error {
	r, err := s.next()
	if err != nil {
		return err
	}
	var (
		group sync.WaitGroup
		mu    sync.Mutex
		total int
		errs  []error
	)
	start := time.Now()
	for range r.Clients {
		group.Go(func() {
			n, err := connectUntil(r.Addr, start.Add(r.Length))
			mu.Lock()
			defer mu.Unlock()
			total += n
			errs = append(errs, err)
		})
	}
	group.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return s.reply(answer{PerSecond: float64(total) / time.Since(start).Seconds()})
}

// connectUntil opens one connection after another until end, and returns how many.
func connectUntil(to netip.AddrPort, end time.Time) (n int, err error) {
	buf := make([]byte, messageSize)
	for ; time.Now().Before(end); n++ {
		conn, err := dial(to)
		if err != nil {
			return n, err
		}
		err = exchange(conn, buf)
		// Linger 0 sends a reset, which leaves no port in TIME_WAIT; there are only about 28,000 ports.
		_ = conn.SetLinger(0)
		_ = conn.Close()
		if err != nil {
			return n, err
		}
	}
	return n, nil
}
