package router

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"weft/internal/peer"
	"weft/router/drop"
	"weft/router/underlay"
	"weft/router/wire"
)

// MaxControl is the longest message of SendControl in bytes: with all headers, relayed over IPv6, it passes any link of
// 1,400 bytes.
const MaxControl = 1250

const (
	// controlEngine is the receiver `to` of control messages between engines. All others are the caller's to assign.
	controlEngine = 0
	// MinControl is the lowest `to` of SendControl.
	MinControl = 1
)

// Errors of SendControl.
var (
	// ErrNoPeer: the ID is not one of the peers.
	ErrNoPeer = errors.New("router: no such peer")
	// ErrNoSession: there is no session yet; one was requested.
	ErrNoSession = errors.New("router: no session")
	// ErrTooLong: the message is longer than MaxControl.
	ErrTooLong = errors.New("router: message too long")
)

// SendControl sends message, sealed, to a peer. The peer calls its Events.ControlReceived with to, which is at least
// MinControl. The message takes the same path as frames, and like a frame it may be lost. SendControl does not keep
// message.
func (e *Engine) SendControl(id peer.ID, to uint8, message []byte) error {
	if len(message) > MaxControl {
		return ErrTooLong
	}
	v := e.peers.Load().byID[id]
	if v == nil {
		return ErrNoPeer
	}
	out := v.egress.Load()
	if out.session == nil {
		e.requestSession(v)
		return ErrNoSession
	}
	return e.sendControl(out, wire.Control{To: to, Message: message})
}

// HasSession reports whether there is a session with a peer.
func (e *Engine) HasSession(id peer.ID) bool {
	v := e.peers.Load().byID[id]
	return v != nil && v.egress.Load().session != nil
}

// SessionSecret returns the fingerprint of the secret of the session with a peer. ok is false if there is none.
func (e *Engine) SessionSecret(id peer.ID) (fingerprint uint32, ok bool) {
	if v := e.peers.Load().byID[id]; v != nil {
		if s := v.egress.Load().session; s != nil {
			return s.Secret(), true
		}
	}
	return 0, false
}

// Endpoint returns where datagrams for a peer are sent at present; not valid for one that is relayed or not reached.
func (e *Engine) Endpoint(id peer.ID) netip.AddrPort {
	if v := e.peers.Load().byID[id]; v != nil && v.direct() {
		return v.egress.Load().addr
	}
	return netip.AddrPort{}
}

// sendControl sends c by an egress. The egress has no session for a moment when a peer has begun a session that it has
// not been heard to use yet, or when its address has changed.
func (e *Engine) sendControl(out *egress, c wire.Control) error {
	if out.session == nil {
		return ErrNoSession
	}
	counter, ok := out.session.Reserve(1)
	if !ok {
		return ErrNoSession
	}
	body := c.Append(make([]byte, 0, 1+len(c.Message)))
	d, ok := e.datagramTo(out.addr, out.session.Seal(nil, wire.TypeControl, counter, body))
	if !ok {
		return ErrNoSession
	}
	batch := [1]underlay.Datagram{d}
	if _, err := e.conns[0].WriteBatch(batch[:]); err != nil {
		return err
	}
	return nil
}

// handleControl handles a control message of a peer.
func (in *inbound) handleControl(body []byte, from *peerView) drop.Reason {
	e := in.engine
	c, err := wire.ParseControl(body)
	switch {
	case err != nil:
		return wireDrop(err)
	case c.To == controlEngine:
		return e.handleEngineMessage(c.Message, from)
	case e.events != nil:
		e.events.ControlReceived(from.ID, c.To, c.Message)
	}
	return 0
}

// Messages between engines: a byte that identifies the kind, and
//
//	dial-back   | token 8                   send a dial-back datagram with this token to my address
//	dialed back | token 8                   it was sent
//	hole punch  | peer 8 | port 2 | IP 16   that peer, which has no address of its own either, is seen there: probe it now
const (
	controlDialBack   = 1
	controlDialedBack = 2
	controlHolePunch  = 3
)

// Lengths of these messages in bytes.
const (
	dialBackLen  = 1 + 8
	holePunchLen = 1 + 8 + 2 + 16
)

// handleEngineMessage handles a message from another engine. It neither waits nor calls Events.
func (e *Engine) handleEngineMessage(m []byte, from *peerView) drop.Reason {
	switch {
	case len(m) == dialBackLen && m[0] == controlDialBack:
		return e.queueDialBack(dialBackRequest{from, binary.BigEndian.Uint64(m[1:])})
	case len(m) == dialBackLen && m[0] == controlDialedBack:
		e.dialBacks.Confirm(binary.BigEndian.Uint64(m[1:]))
	case len(m) == holePunchLen && m[0] == controlHolePunch:
		addr := netip.AddrFrom16([16]byte(m[11:])).Unmap()
		return e.startHolePunch(from, peer.ID(m[1:]), netip.AddrPortFrom(addr, binary.BigEndian.Uint16(m[9:])))
	default:
		return drop.Metadata
	}
	return 0
}
