// Package probe holds the small clients and servers of the bench that no usual tool has: sockets that are opened inside a
// namespace and used from the bench's own process.
package probe

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"

	"weft/bench/lab"
)

// messageSize is how many bytes a request, and its answer, has.
const messageSize = 64

// Echo is a TCP server that sends back what it is sent.
type Echo struct {
	listener net.Listener
	group    sync.WaitGroup

	// Guarded by mu.
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// Listen starts an echo server at an end. It must be closed.
func Listen(at lab.End) (*Echo, error) {
	e := &Echo{conns: map[net.Conn]bool{}}
	err := at.Do(func() (err error) {
		e.listener, err = net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(netip.AddrPortFrom(at.Addr, 0)))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("probe: %w", err)
	}
	e.group.Go(e.accept)
	return e, nil
}

// Addr returns where it listens.
func (e *Echo) Addr() netip.AddrPort { return e.listener.Addr().(*net.TCPAddr).AddrPort() }

// Close ends the server with all its connections and waits for it.
func (e *Echo) Close() {
	_ = e.listener.Close()
	e.mu.Lock()
	e.closed = true
	for c := range e.conns {
		_ = c.Close()
	}
	e.mu.Unlock()
	e.group.Wait()
}

func (e *Echo) accept() {
	for {
		conn, err := e.listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // a client that was gone already
		}
		e.mu.Lock()
		if e.closed {
			_ = conn.Close()
		}
		e.conns[conn] = true
		e.mu.Unlock()
		e.group.Go(func() { e.serve(conn) })
	}
}

func (e *Echo) serve(conn net.Conn) {
	buf := make([]byte, messageSize)
	for {
		if _, err := io.ReadFull(conn, buf); err != nil {
			break
		}
		if _, err := conn.Write(buf); err != nil {
			break
		}
	}
	_ = conn.Close()
	e.mu.Lock()
	delete(e.conns, conn)
	e.mu.Unlock()
}
