// Package probe has the small clients and servers of the bench that no common tool provides. Their sockets are opened
// inside a network namespace and used from the bench's own process.
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

// messageSize is the size of a request, and of its answer, in bytes.
const messageSize = 64

// Echo is a TCP server that sends back the bytes that it receives. Its methods may be called concurrently.
type Echo struct {
	listener net.Listener
	group    sync.WaitGroup

	// Guarded by mu.
	mu     sync.Mutex
	conns  map[net.Conn]bool
	closed bool
}

// Listen starts an echo server at an end. The caller must close it.
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

// Addr returns the address that the server listens on.
func (e *Echo) Addr() netip.AddrPort { return e.listener.Addr().(*net.TCPAddr).AddrPort() }

// Close closes the server and all its connections, and waits for its goroutines. It may be called more than once.
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
			continue // the client has closed the connection already
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
