// Package probe has the small clients and servers of the bench that no common tool provides. They are child processes in
// the namespaces of the ends and on the cores of their hosts, which run the program of their parent: see Child.
package probe

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"

	"weft/bench/lab"
)

// messageSize is the size of a request, and of its answer, in bytes.
const messageSize = 64

// Echo is a TCP server that sends back the bytes that it receives. It is for one goroutine at a time.
type Echo struct {
	server *child
	addr   netip.AddrPort
}

// Listen starts an echo server at an end. The caller must close it.
func Listen(at lab.End) (*Echo, error) {
	c, err := start(at, "echo")
	if err != nil {
		return nil, err
	}
	a, err := c.ask(context.Background(), request{Addr: netip.AddrPortFrom(at.Addr, 0)})
	if err != nil {
		c.close()
		return nil, err
	}
	return &Echo{server: c, addr: a.Addr}, nil
}

// Addr returns the address that the server listens on.
func (e *Echo) Addr() netip.AddrPort { return e.addr }

// Close ends the server, which closes all its connections. It may be called more than once.
func (e *Echo) Close() { e.server.close() }

// serveEcho is the child of Listen.
func serveEcho(s *stream) error {
	r, err := s.next()
	if err != nil {
		return err
	}
	listener, err := net.ListenTCP("tcp4", net.TCPAddrFromAddrPort(r.Addr))
	if err != nil {
		return fmt.Errorf("probe: %w", err)
	}
	defer listener.Close()
	go accept(listener)
	if err := s.reply(answer{Addr: listener.Addr().(*net.TCPAddr).AddrPort()}); err != nil {
		return err
	}
	_, err = s.next() // the parent sends no other request
	return err
}

func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			continue // the client has closed the connection already
		}
		go serve(conn)
	}
}

// serve answers the requests of one client.
func serve(conn net.Conn) {
	defer conn.Close()
	buf := make([]byte, messageSize)
	for {
		if _, err := io.ReadFull(conn, buf); err != nil {
			return
		}
		if _, err := conn.Write(buf); err != nil {
			return
		}
	}
}
