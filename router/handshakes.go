package router

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"weft/internal/peer"
	"weft/router/drop"
	"weft/router/endpoint"
	"weft/router/roaming"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
)

// Bounds of the queues of the handshake goroutine. What does not fit is dropped, and is sent or requested again.
const (
	maxMessages        = 256
	maxStrays          = 64
	maxSessionRequests = 256
	maxSessionUpdates  = 64
)

// handshakes makes the engine's sessions. The session.Node decides; runHandshakes passes it messages and requests, and
// applies the results.
type handshakes struct {
	// Constant.

	node     *session.Node // Lookup needs no lock; all else is guarded by mu
	messages chan handshakeMessage
	strays   chan strayDatagram
	updates  chan sessionUpdate
	wake     chan struct{} // holds a token while the Node may have results, or an earlier deadline

	mu sync.Mutex
}

// handshakeMessage is a message of a handshake as it was received.
type handshakeMessage struct {
	bytes  [wire.InitiationLen]byte // the longest
	length int
	from   netip.AddrPort
}

// strayDatagram is a datagram of an unknown session.
type strayDatagram struct {
	header wire.Header
	from   netip.AddrPort
}

// sessionUpdate is a sealed datagram of a peer that confirms its session, that arrived from another endpoint than the
// present one, or that proves one.
type sessionUpdate struct {
	session *session.Session
	addr    netip.AddrPort
	newest  bool // no datagram that was sent later has arrived
	locates bool // the peer may be reached at addr
	proven  bool // the datagram answers a probe that was sent to addr
}

func newHandshakes(cfg session.Config) (*handshakes, error) {
	node, err := session.NewNode(cfg)
	if err != nil {
		return nil, err
	}
	return &handshakes{
		node: node, messages: make(chan handshakeMessage, maxMessages), strays: make(chan strayDatagram, maxStrays),
		updates: make(chan sessionUpdate, maxSessionUpdates), wake: make(chan struct{}, 1),
	}, nil
}

// locked calls f with the Node.
func (k *handshakes) locked(f func(*session.Node)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(k.node)
}

// with calls f with the Node, and wakes the handshake goroutine to apply the results.
func (k *handshakes) with(f func(*session.Node)) {
	k.locked(f)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *handshakes) setPeers(peers *snapshot, now time.Time) {
	list := make([]session.Peer, 0, len(peers.sorted))
	for _, v := range peers.sorted {
		p := session.Peer{ID: v.ID, Public: v.Public, Accepts: v.Accepts}
		p.Addr, p.Proven = v.provenAt()
		if !v.Via.IsZero() {
			p.RelayEndpoint = v.home
		}
		list = append(list, p)
	}
	k.with(func(n *session.Node) { n.SetPeers(list, now) })
}

func (k *handshakes) info(id peer.ID) session.Info {
	var info session.Info
	k.locked(func(n *session.Node) { info = n.Info(id) })
	return info
}

// queueMessage copies a message for the handshake goroutine, so that frames do not wait for public-key cryptography.
func (k *handshakes) queueMessage(b []byte, from netip.AddrPort) drop.Reason {
	m := handshakeMessage{length: len(b), from: from}
	if copy(m.bytes[:], b) < len(b) {
		return drop.Metadata
	}
	select {
	case k.messages <- m:
		return 0
	default:
		return drop.Busy
	}
}

// queueStray has the sender of a datagram notified that its session is unknown here.
func (k *handshakes) queueStray(h wire.Header, from netip.AddrPort) {
	select {
	case k.strays <- strayDatagram{h, from}:
	default:
	}
}

// SetSecrets replaces the secrets that this node shares with others: one or more, if New was called with some, otherwise
// none. See session.Node.
func (e *Engine) SetSecrets(secrets []session.Secret) {
	e.handshakes.with(func(n *session.Node) { n.SetSecrets(secrets, e.now()) })
}

// onAuthenticated is called for every sealed datagram that opens, at a time in nanoseconds of Unix time. The first one of a
// session confirms it; if the newest one comes from elsewhere, the peer is looked for there (roaming), unless the peer
// sends by a newer session already, or the datagram does not locate it.
//
// It takes no lock: the handshake goroutine applies both. If its queue is full nothing is lost, as the session stays
// unconfirmed, or the endpoint differs still, when the next datagram arrives.
func (e *Engine) onAuthenticated(s *session.Session, from *peerView, addr netip.AddrPort, newest, locates bool, at int64) {
	first := !s.Confirmed()
	moved := locates && suggestsMove(s, from.egress.Load(), addr, newest, first) && !endpoint.IsRelayed(addr) && from.mayPropose(at)
	if moved {
		from.observe(addr)
	}
	if !first && (!moved || !from.direct()) {
		return
	}
	select {
	case e.handshakes.updates <- sessionUpdate{session: s, addr: addr, newest: newest, locates: locates}:
	default:
		from.proposed.Store(0)
	}
}

// suggestsMove reports whether a datagram of s that arrived from addr suggests that the endpoint of out is outdated. first
// says that it is the first datagram of s.
func suggestsMove(s *session.Session, out *egress, addr netip.AddrPort, newest, first bool) bool {
	current := first || out.session == nil || out.session == s || !out.session.Confirmed()
	return (newest || first) && current && out.addr != addr
}

// follows reports whether datagrams for a peer may be sent to the source of its datagrams. Routing decides whether a
// peer is relayed, not the way that its datagrams take.
func follows(v *peerView, addr netip.AddrPort) bool { return v.direct() && !endpoint.IsRelayed(addr) }

// applySessionUpdate confirms a session, and moves the peer's endpoint or has another one probed.
func (e *Engine) applySessionUpdate(u sessionUpdate) {
	v := e.peers.Load().byID[u.session.Peer()]
	if v == nil {
		return // it has left, and its sessions with it
	}
	if u.proven {
		e.moveEndpoint(v, u.addr)
		return
	}
	first := u.session.Confirm()
	if at := u.session.Answered(); first && at.IsValid() && !endpoint.IsRelayed(at) {
		e.moveEndpoint(v, at) // it has received the response there
	}
	if u.locates && suggestsMove(u.session, v.egress.Load(), u.addr, u.newest, first) && follows(v, u.addr) {
		e.proposeEndpoint(v, roaming.Seen, u.addr)
	}
	if first {
		e.handshakes.locked(func(n *session.Node) { n.ConfirmSession(u.session, e.now()) })
	}
}

// runHandshakes makes sessions until ctx ends. It has a goroutine of its own, as the cryptography of a handshake takes
// as long as hundreds of frames.
func (e *Engine) runHandshakes(ctx context.Context) {
	k := e.handshakes
	enc := newEncoder(e, e.conns[0])
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		k.setTimer(timer, e.now())
		select {
		case <-ctx.Done():
			return
		case m := <-k.messages:
			var err error
			k.locked(func(n *session.Node) { err = n.Receive(m.bytes[:m.length], m.from, e.now()) })
			if reason := handshakeDrop(err); reason != 0 {
				e.drop(nil, reason, 1)
			}
		case s := <-k.strays:
			k.locked(func(n *session.Node) { n.HandleUnknownSession(s.header, s.from, e.now()) })
		case u := <-k.updates:
			e.applySessionUpdate(u)
		case id := <-e.sessionRequests:
			if v := e.peers.Load().byID[id]; v != nil {
				v.requested.Store(false)
				k.locked(func(n *session.Node) { n.RequestSession(id, e.now()) })
			}
		case <-k.wake:
		case <-timer.C:
			k.locked(func(n *session.Node) { n.Advance(e.now()) })
		}
		e.applySessionChanges(&enc)
	}
}

// setTimer sets timer to the Node's deadline.
func (k *handshakes) setTimer(timer *time.Timer, now time.Time) {
	k.locked(func(n *session.Node) {
		if at := n.Deadline(); at.IsZero() {
			timer.Reset(time.Hour)
		} else {
			timer.Reset(at.Sub(now))
		}
	})
}

// handshakeDrop returns the reason for an error of Node.Receive; 0 if nothing was dropped.
func handshakeDrop(err error) drop.Reason {
	for _, d := range []struct {
		err    error
		reason drop.Reason
	}{
		{nil, 0}, {session.ErrTie, 0}, {session.ErrLate, 0}, // another handshake goes on
		{session.ErrUnproven, 0}, // the sender was asked to prove that it is new
		{session.ErrSecret, drop.Secret}, {session.ErrBusy, drop.Busy}, {session.ErrUnknownPeer, drop.UnknownPeer},
		{session.ErrUnexpected, drop.Unexpected}, {session.ErrCipher, drop.Cipher}, {session.ErrReplayed, drop.Replayed},
		{session.ErrForged, drop.Forged}, {wire.ErrShort, drop.Truncated},
	} {
		if errors.Is(err, d.err) {
			return d.reason
		}
	}
	return drop.Metadata
}

// applySessionChanges sends the messages of the Node, and installs and drops sessions as it has decided.
func (e *Engine) applySessionChanges(enc *encoder) {
	var messages []session.Message
	var changes []session.Change
	e.handshakes.locked(func(n *session.Node) { messages, changes = n.Drain() })
	batch := make([]underlay.Datagram, 0, len(messages))
	for _, m := range messages {
		if d, ok := e.datagramTo(m.To, m.Datagram); ok {
			batch = append(batch, d)
		}
	}
	if len(batch) > 0 {
		_, _ = e.conns[0].WriteBatch(batch) // a message that is not sent counts as lost, and is repeated
	}
	for _, change := range changes {
		if v := e.peers.Load().byID[change.Peer]; v != nil {
			e.applySessionChange(v, change, enc)
		}
	}
}

func (e *Engine) applySessionChange(v *peerView, change session.Change, enc *encoder) {
	s, addr := change.Session, change.Addr
	if !v.direct() {
		addr = v.home
	}
	if s == nil {
		e.dropSession(v, addr)
		return
	}
	e.installSession(v, s, addr, enc, e.now())
	if s.Initiator() && !endpoint.IsRelayed(change.Addr) {
		e.linkProven(v, change.Addr)
	}
	e.log.Debug("session", "peer", change.Peer, "addr", change.Addr, "cipher", s.Cipher(), "plain", s.Plain())
	if v.plainAgreed.Swap(s.Plain()) != s.Plain() && e.events != nil {
		e.events.PlainAgreed(change.Peer)
	}
}
