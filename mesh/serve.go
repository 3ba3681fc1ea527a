package mesh

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/hashicorp/memberlist"

	"weft/internal/peer"
	"weft/mesh/gate"
	"weft/mesh/memberlog"
	"weft/mesh/seal"
	"weft/mesh/sieve"
)

// runStreams serves the streams that others open, each in a goroutine, until Shutdown. It returns when all have ended.
func (t *sealedTransport) runStreams() {
	var streams sync.WaitGroup
	defer streams.Wait()
	for {
		select {
		case <-t.stop:
			return
		case conn := <-t.under.StreamCh():
			if e := t.gate.Enter(conn); e != nil {
				streams.Go(func() { t.serve(e) })
			}
		}
	}
}

// serve authenticates a stream, and handles the message on it.
func (t *sealedTransport) serve(e *gate.Stream) {
	s, err := t.acceptStream(e)
	if err != nil {
		t.countStream(e, err)
		_ = e.Close()
		return
	}
	kind, msg, err := t.receive(s)
	if err == nil && t.mesh.identities.IsRevoked(s.id) { // since the handshake
		s.budget.Give(cap(msg))
		err = errNotAdmitted
	}
	if err != nil {
		t.countStream(e, err)
		_ = e.Close()
		return
	}
	switch kind {
	case seal.Memberlist:
		t.deliverStream(s, msg)
		return
	case seal.Unicast:
		t.mesh.handleUnicast(s.id, msg)
		s.budget.Give(cap(msg))
		err = s.sendStatus(seal.Accepted)
	default:
		s.budget.Give(cap(msg))
		t.mesh.countUnknown(s.id, "stream", byte(kind))
		err = s.sendStatus(seal.RefusedMessage)
	}
	if err != nil {
		t.mesh.log.Debug("status not sent", "peer", s.id, "err", err)
	}
	_ = e.Close()
}

// receive receives one message. The caller gives cap(msg) back to the budget.
func (t *sealedTransport) receive(s *stream) (seal.MessageKind, []byte, error) {
	if err := s.SetDeadline(time.Now().Add(streamTimeout)); err != nil {
		return 0, nil, err
	}
	return s.session.ReadMessage(s.Conn, seal.MaxMessage, s.budget)
}

// deliverStream passes a stream, of which one message was received, to memberlist.
func (t *sealedTransport) deliverStream(s *stream, msg []byte) {
	c := newMemberConn(t, s)
	c.received, c.msg, c.unread = true, msg, msg
	if err := sieve.Stream(msg, sieve.MaxIncarnation(time.Now())); err != nil {
		t.mesh.rejected.record(&t.mesh.drops.malformed, s.id, err)
		_ = s.sendStatus(seal.RefusedMessage)
		_ = c.Close()
		return
	}
	timer := time.NewTimer(streamTimeout)
	defer timer.Stop()
	select {
	case t.streams <- c:
		return
	case <-timer.C:
		t.mesh.drops.busy.Add(1)
	case <-t.stop:
	}
	_ = c.Close()
}

// countStream counts a stream that another node has opened, and that has failed.
func (t *sealedTransport) countStream(e *gate.Stream, err error) {
	drops := &t.mesh.drops
	switch {
	case e.WasEvicted():
		drops.unauthenticated.Add(1)
	case errors.Is(err, seal.ErrVersion):
		drops.version.Add(1)
	case errors.Is(err, seal.ErrKey):
		drops.noKey.Add(1)
	case errors.Is(err, seal.ErrMalformed):
		drops.malformed.Add(1)
	case errors.Is(err, seal.ErrBudget), errors.Is(err, errBusy):
		drops.busy.Add(1)
	case errors.Is(err, errNotAdmitted):
		drops.notAdmitted.Add(1)
	case errors.Is(err, ErrDuplicateKey), errors.Is(err, net.ErrClosed):
	default: // silence, or an end in the middle
		drops.unauthenticated.Add(1)
	}
	t.mesh.log.Debug("stream of another node ended", "addr", e.RemoteAddr(), "err", err)
}

// memberConn is a stream as memberlist uses it: one message in each direction. It belongs to one goroutine, but for Close.
type memberConn struct {
	*stream
	t        *sealedTransport
	received bool   // the message of the other end
	msg      []byte // taken from the budget of the stream
	unread   []byte // the rest of msg
	closing  sync.Once
}

func newMemberConn(t *sealedTransport, s *stream) *memberConn {
	return &memberConn{stream: s, t: t}
}

// Read implements net.Conn. At first it receives the message of the other end as a whole, and checks it.
func (c *memberConn) Read(b []byte) (int, error) {
	if !c.received {
		c.received = true
		kind, msg, err := c.session.ReadMessage(c.Conn, seal.MaxMessage, c.budget)
		if err != nil {
			return 0, err
		}
		c.msg = msg
		if kind == seal.Status && len(msg) > 0 {
			return 0, &RefusedError{Reason: seal.Refusal(msg[0])}
		}
		if err := sieve.Reply(msg, sieve.MaxIncarnation(time.Now())); kind != seal.Memberlist || err != nil {
			err = errors.Join(seal.ErrMalformed, err)
			c.t.mesh.rejected.record(&c.t.mesh.drops.malformed, c.id, err)
			return 0, err
		}
		c.unread = msg
	}
	if len(c.unread) == 0 {
		return 0, io.EOF
	}
	n := copy(b, c.unread)
	c.unread = c.unread[n:]
	return n, nil
}

// Write implements net.Conn. Each call sends a message: memberlist writes each of its messages with one.
func (c *memberConn) Write(b []byte) (int, error) {
	if err := c.session.WriteMessage(c.Conn, seal.Memberlist, b); err != nil {
		return 0, err
	}
	return len(b), nil
}

// Close implements net.Conn. It may be called again.
func (c *memberConn) Close() error {
	c.closing.Do(func() { c.budget.Give(cap(c.msg)) })
	return c.Conn.Close()
}

// join exchanges states with the node at addr. An error about the key is a *mismatch.Error.
func (t *sealedTransport) join(list *memberlist.Memberlist, addr netip.AddrPort) error {
	s, err := t.openStream(addr.String(), peer.ID{}, streamTimeout)
	if err != nil {
		return err
	}
	name := t.keepPredialed(s)
	_, err = list.Join([]string{name + "/" + addr.String()})
	if conn := t.takePredialed(name); conn != nil {
		_ = conn.Close()
	}
	return memberlog.JoinError(err, addr)
}

// keepPredialed keeps a stream for memberlist's Join, which reports errors only as text, and returns the name under which
// Join has to dial. No node has such a name.
func (t *sealedTransport) keepPredialed(s *stream) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.joins++
	name := "#" + strconv.FormatUint(t.joins, 10)
	t.predialed[name] = newMemberConn(t, s)
	return name
}

// takePredialed returns the stream that was kept under name, nil if there is none.
func (t *sealedTransport) takePredialed(name string) net.Conn {
	t.mu.Lock()
	defer t.mu.Unlock()
	conn := t.predialed[name]
	delete(t.predialed, name)
	return conn
}
