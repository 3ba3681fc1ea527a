package router

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"weft/internal/peer"
	"weft/router/underlay"
	"weft/router/wire"
)

// MaxControl is the longest message of SendControl in bytes: with all that is put around it, relayed over IPv6, it passes
// any link of 1,400 bytes.
const MaxControl = 1250

// controlEngine is who the engines' own control messages are for; those above it are the caller's to share out.
const (
	controlEngine = 0
	// MinControl is the lowest `to` of SendControl.
	MinControl = 1
)

// Errors of SendControl.
var (
	// ErrNoPeer: it is none of the peers.
	ErrNoPeer = errors.New("router: no such peer")
	// ErrNoSession: there is no session yet; one is being made.
	ErrNoSession = errors.New("router: no session")
	// ErrTooLong: the message is longer than MaxControl.
	ErrTooLong = errors.New("router: message too long")
)

// SendControl sends message, sealed, to a peer's Config.OnControl, with to, from MinControl on: by whatever way frames
// would take. Like a frame it may be lost. It does not keep message.
func (e *Engine) SendControl(id peer.ID, to uint8, message []byte) error {
	if len(message) > MaxControl {
		return ErrTooLong
	}
	h := e.peers.Load().byID[id]
	if h == nil {
		return ErrNoPeer
	}
	l := h.state.crossing.lane.Load()
	if l.session == nil {
		e.want(h)
		return ErrNoSession
	}
	return e.sendControl(l, wire.Control{To: to, Message: message})
}

// HasSession reports whether there is a session with a peer.
func (e *Engine) HasSession(id peer.ID) bool {
	h := e.peers.Load().byID[id]
	return h != nil && h.state.crossing.lane.Load().session != nil
}

// sendControl sends c by a lane. There is no session by it for a moment where a peer has begun one that this node has not
// heard it use, or its address has changed.
func (e *Engine) sendControl(l *lane, c wire.Control) error {
	if l.session == nil {
		return ErrNoSession
	}
	counter, ok := l.session.Reserve(1)
	if !ok {
		return ErrNoSession
	}
	body := c.Append(make([]byte, 0, 1+len(c.Message)))
	d, ok := e.towards(l.addr, l.session.Seal(nil, wire.TypeControl, counter, body))
	if !ok {
		return ErrNoSession
	}
	batch := [1]underlay.Datagram{d}
	if _, err := e.conns[0].WriteBatch(batch[:]); err != nil {
		return err
	}
	return nil
}

// control takes a control message of a peer's.
func (in *inbound) control(body []byte, from *hop) Drop {
	c, err := wire.ParseControl(body)
	switch {
	case err != nil:
		return wireDrop(err)
	case c.To == controlEngine:
		return in.engine.engineControl(c.Message, from)
	case in.engine.control != nil:
		in.engine.control(from.ID, c.To, c.Message)
	}
	return 0
}

// Messages among engines: a byte that says which, and
//
//	knock   | token 8                   send a knock with this token to my address
//	knocked | token 8                   it was sent
//	meet    | peer 8 | port 2 | IP 16   that peer, which has no address of its own either, is seen there: try it now
const (
	controlKnock   = 1
	controlKnocked = 2
	controlMeet    = 3
)

func (e *Engine) engineControl(m []byte, from *hop) Drop {
	switch {
	case len(m) == 9 && m[0] == controlKnock:
		if e.knock != nil && e.knocks.allow(e.now()) {
			e.knock(from.Addr, wire.Knock(binary.BigEndian.Uint64(m[1:])))
			_ = e.sendControl(from.state.crossing.lane.Load(), wire.Control{Message: append([]byte{controlKnocked}, m[1:]...)})
		}
	case len(m) == 9 && m[0] == controlKnocked:
		e.knocks.sent(binary.BigEndian.Uint64(m[1:]))
	case len(m) == 27 && m[0] == controlMeet:
		addr := netip.AddrFrom16([16]byte(m[11:])).Unmap()
		e.links.meet(peer.ID(m[1:]), netip.AddrPortFrom(addr, binary.BigEndian.Uint16(m[9:])))
	default:
		return DropMetadata
	}
	return 0
}

// meetMessage returns what introduces a peer that is seen at addr.
func meetMessage(id peer.ID, addr netip.AddrPort) []byte {
	m := append([]byte{controlMeet}, id[:]...)
	m = binary.BigEndian.AppendUint16(m, addr.Port())
	ip := addr.Addr().As16()
	return append(m, ip[:]...)
}
