package dns

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Bounds of what clients can use. One client gets a quarter of the first two: see shares.
const (
	maxForwards = 256             // queries that wait for resolvers; further ones fail
	maxConns    = 128             // TCP connections; further ones are closed
	maxQuery    = 4096            // bytes of a query over UDP; a longer one is cut, and malformed therefore
	idleTCP     = 8 * time.Second // until the next query on a connection must be complete
	writeTCP    = 2 * time.Second
)

// endpoint is one address on which the server listens.
type endpoint struct {
	udp *net.UDPConn
	tcp *net.TCPListener

	stop context.CancelFunc
	done chan struct{} // closed when all its goroutines have ended
	err  error         // why it ended by itself; valid once done is closed
}

// listen binds an address and answers there until ctx ends or the endpoint is closed.
func (s *Server) listen(ctx context.Context, a netip.Addr) (*endpoint, error) {
	at := netip.AddrPortFrom(a, s.cfg.Port)
	family := "4"
	if a.Is6() {
		family = "6"
	}
	udp, err := net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(at))
	if err != nil {
		return nil, fmt.Errorf("dns: %w", err)
	}
	tcp, err := net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(at))
	if err != nil {
		_ = udp.Close()
		return nil, fmt.Errorf("dns: %w", err)
	}
	e := &endpoint{udp: udp, tcp: tcp, done: make(chan struct{})}
	ctx, e.stop = context.WithCancel(ctx)
	go func() {
		defer close(e.done)
		e.err = s.serve(ctx, e)
		s.rebind.Set()
	}()
	return e, nil
}

// close ends the endpoint and waits for its goroutines.
func (e *endpoint) close() {
	e.stop()
	<-e.done
}

// failed returns why the endpoint has ended by itself, nil while it runs.
func (e *endpoint) failed() error {
	select {
	case <-e.done:
		e.stop()
		return fmt.Errorf("dns: %w", e.err)
	default:
		return nil
	}
}

// serve answers until ctx ends or one of the two sockets fails. It closes both, and always returns an error.
func (s *Server) serve(ctx context.Context, e *endpoint) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.serveUDP(ctx, e.udp) })
	group.Go(func() error { return s.serveTCP(ctx, e.tcp) })
	<-ctx.Done()
	_ = e.udp.Close()
	_ = e.tcp.Close()
	return group.Wait()
}

// serveUDP answers from the registry in its own goroutine. Only a query that is forwarded gets a goroutine of its own.
func (s *Server) serveUDP(ctx context.Context, conn *net.UDPConn) error {
	var waiting sync.WaitGroup
	defer waiting.Wait()
	buf := make([]byte, maxQuery)
	for {
		n, client, err := conn.ReadFromUDPAddrPort(buf)
		if err != nil {
			return err
		}
		q, ok := parse(buf[:n], client.Addr())
		if !ok {
			continue
		}
		send := func(reply []byte) { _, _ = conn.WriteToUDPAddrPort(reply, client) } // a client that misses it asks again
		reply := s.respond(q)
		switch {
		case reply != nil:
			send(q.pack(reply))
		case !s.forwards.acquire(q.from):
			send(q.pack(s.busy(q)))
		default:
			waiting.Go(func() {
				defer s.forwards.release(q.from)
				send(q.pack(s.forward(ctx, q)))
			})
		}
	}
}

func (s *Server) serveTCP(ctx context.Context, l *net.TCPListener) error {
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		client := s.clientOf(conn)
		if !s.conns.acquire(client) {
			_ = conn.Close()
			continue
		}
		open.Go(func() {
			defer s.conns.release(client)
			s.serveConn(ctx, conn)
		})
	}
}

// clientOf returns the address of the other end of a connection; the zero Addr when it is not served.
func (s *Server) clientOf(conn net.Conn) netip.Addr {
	remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if client := remote.Addr().Unmap().WithZone(""); err == nil && s.serves(client) {
		return client
	}
	return netip.Addr{}
}

// serveConn answers the queries on a connection, one after the other.
func (s *Server) serveConn(ctx context.Context, conn net.Conn) {
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { _ = conn.Close() })()
	remote, err := netip.ParseAddrPort(conn.RemoteAddr().String())
	if err != nil {
		return
	}
	for {
		raw, err := readTCP(conn)
		if err != nil {
			return
		}
		q, ok := parse(raw, remote.Addr())
		if !ok {
			return
		}
		q.tcp = true
		if err := writeReply(conn, q.pack(s.respondTCP(ctx, q))); err != nil || !s.serves(q.from) {
			return
		}
	}
}

func (s *Server) respondTCP(ctx context.Context, q *query) *message {
	if reply := s.respond(q); reply != nil {
		return reply
	}
	if !s.forwards.acquire(q.from) {
		return s.busy(q)
	}
	defer s.forwards.release(q.from)
	return s.forward(ctx, q)
}

// readTCP reads a message, which follows its length in two bytes (RFC 1035, 4.2.2).
func readTCP(conn net.Conn) ([]byte, error) {
	if err := conn.SetReadDeadline(time.Now().Add(idleTCP)); err != nil {
		return nil, err
	}
	var length [2]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return nil, err
	}
	raw := make([]byte, binary.BigEndian.Uint16(length[:]))
	_, err := io.ReadFull(conn, raw)
	return raw, err
}

// errTooLong is the error of a message that does not fit its length field. pack returns no such message.
var errTooLong = errors.New("dns: message too long")

func writeReply(conn net.Conn, reply []byte) error {
	if len(reply) > 0xffff {
		return errTooLong
	}
	if err := conn.SetWriteDeadline(time.Now().Add(writeTCP)); err != nil {
		return err
	}
	_, err := conn.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(reply))), reply...))
	return err
}
