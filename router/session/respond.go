package session

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/flynn/noise"

	"weft/internal/peer"
	"weft/router/wire"
)

// Times that decide whether a received initiation is accepted.
const (
	// peerPause is the shortest time between two accepted initiations of one peer.
	peerPause = 20 * time.Millisecond
	// tieTime is how long after its own first initiation of an attempt a node refuses the peer's (see ErrTie).
	tieTime = 250 * time.Millisecond
)

// Errors of Receive, returned unwrapped or joined with others: each is a reason to drop a message and to count it.
// Receive also returns the errors of package wire, ErrForged, ErrCipher, ErrReplayed and ErrUnproven.
var (
	// ErrSecret: the sender does not know this node's key, or has no secret in common with this node.
	ErrSecret = errors.New("session: no common secret")
	// ErrBusy: there are too many messages. The sender got a cookie, or will retry.
	ErrBusy = errors.New("session: too many handshakes")
	// ErrUnknownPeer: the sender is none of the peers.
	ErrUnknownPeer = errors.New("session: sender is no known peer")
	// ErrLate: the request of this node that the message replies to has ended meanwhile, as another one has replaced it.
	ErrLate = errors.New("session: late reply")
	// ErrUnproven: an initiation that may be a recording was answered with a cookie, with which its sender can prove that it is new.
	ErrUnproven = errors.New("session: not proven to be new")
	// ErrUnexpected: no request of this node matches the message.
	ErrUnexpected = errors.New("session: reply without a request")
	// ErrTie: both ends sent an initiation at the same time, and this node's handshake goes on.
	ErrTie = errors.New("session: simultaneous initiation")
)

// Receive handles the handshake message b, which came from the address from at now. It does not keep b. The error is
// the reason why the message had no effect.
func (n *Node) Receive(b []byte, from netip.AddrPort, now time.Time) error {
	h, _, err := wire.Parse(b)
	if err != nil {
		return err
	}
	switch h.Type {
	case wire.TypeInitiation:
		return n.handleInitiation(b, from, now)
	case wire.TypeResponse:
		return n.handleResponse(b, now)
	case wire.TypeCookie:
		return n.handleCookie(b, now)
	case wire.TypeUnknown:
		if len(b) != wire.HeaderLen {
			return wire.ErrHandshake
		}
		return n.handleUnknownNotice(h, now)
	default:
		return wire.ErrType
	}
}

// initiation is a received Initiation on its way through the checks; each check sets more of it.
type initiation struct {
	node     *Node
	datagram []byte
	msg      wire.Initiation
	from     netip.AddrPort
	at       time.Time

	secret  *ownSecret            // with which the first MAC was made; set by handleInitiation
	proven  bool                  // the sender showed with a cookie that it receives at from; set by admit
	state   *noise.HandshakeState // that has read the message; set by open
	payload initiationPayload     // set by open
	remote  *remote               // the sender; set by open
}

// handleInitiation checks an initiation, the cheapest check first, and responds to it.
func (n *Node) handleInitiation(b []byte, from netip.AddrPort, now time.Time) error {
	m, err := wire.ParseInitiation(b)
	if err != nil {
		return err
	}
	in := &initiation{node: n, datagram: b, msg: m, from: from, at: now}
	if in.secret = n.findSecret(b[:len(b)-2*wire.MACLen], m.First); in.secret == nil {
		return ErrSecret
	}
	for _, step := range []func() error{in.admit, in.open, in.checkReplay, in.breakTie} {
		if err := step(); err != nil {
			return err
		}
	}
	in.recordTime()
	return in.respond()
}

// findSecret returns the secret with which the first MAC of an initiation was made, or nil.
func (n *Node) findSecret(covered, first []byte) *ownSecret {
	for i := range n.secrets {
		if equalMAC(mac(n.secrets[i].mac, covered), first) {
			return &n.secrets[i]
		}
	}
	return nil
}

// admit returns ErrBusy if the initiation must not cost a handshake now. If there are too many without a cookie, it
// sends one.
func (in *initiation) admit() error {
	n := in.node
	if err := n.cookies.rotate(in.at); err != nil {
		return err
	}
	if n.cookies.valid(in.from, in.datagram) {
		in.proven = true
		if !n.limiter.allowAddress(n.cookies.key, in.from.Addr(), in.at) {
			return ErrBusy
		}
		return nil
	}
	if n.limiter.free.Allow(in.at) {
		return nil
	}
	return errors.Join(ErrBusy, in.sendCookie())
}

// sendCookie sends a cookie to the sender, within the limit.
func (in *initiation) sendCookie() error {
	n := in.node
	if !n.limiter.cookies.Allow(in.at) {
		return nil
	}
	datagram, err := n.cookies.reply(in.secret.cookie, in.from, in.msg)
	if err != nil {
		return fmt.Errorf("session: cookie: %w", err)
	}
	n.send(in.from, datagram)
	return nil
}

// open decrypts the initiation and finds the peer that sent it.
func (in *initiation) open() error {
	state, err := in.node.party.newHandshake(nil)
	if err != nil {
		return err
	}
	sealed, _, _, err := state.ReadMessage(nil, in.msg.Noise)
	if err != nil {
		return ErrForged
	}
	payload, err := parseInitiationPayload(sealed)
	if err != nil {
		return err
	}
	public := [KeyLen]byte(state.PeerStatic())
	r := in.node.remotes[payload.sender]
	if r == nil || r.Public != public || payload.sender != peer.FromPublicKey(public) {
		return ErrUnknownPeer
	}
	in.state, in.payload, in.remote = state, payload, r
	return nil
}

// checkReplay returns ErrReplayed for a recorded initiation, ErrUnproven for one that may be one, and ErrBusy for one that follows the last
// one too soon. A peer with a clock that was set back gets a cookie: with it the peer proves that its initiation is new. Of the initiations
// accepted so, too, each has to be later than the one before, for as long as a cookie is valid.
func (in *initiation) checkReplay() error {
	r, sent := in.remote, in.payload.time
	if sent == r.newestTime || sent <= r.lateTime && recent(r.lateAt, 2*cookieAge, in.at) {
		return ErrReplayed
	}
	if pause := in.at.Sub(r.acceptedAt); pause >= 0 && pause < peerPause && !r.acceptedAt.IsZero() {
		return ErrBusy
	}
	// After a start this node knows no earlier initiation: one with a time before the start may be a recording.
	if (sent < r.newestTime || r.newestTime == 0 && sent < in.node.started) && !in.proven {
		return errors.Join(ErrUnproven, in.sendCookie())
	}
	return nil
}

// breakTie decides between this handshake and one that this node began with the same peer: the handshake of the node
// with the lower ID goes on. It returns ErrTie if that is this node's.
func (in *initiation) breakTie() error {
	n, r := in.node, in.remote
	if a := r.attempt; a != nil && n.self.Compare(r.ID) > 0 {
		n.replaceHandshake(r, in.at)
	} else if a != nil && a.number == 1 && recent(a.sentAt, tieTime, in.at) && in.payload.time > r.newestTime {
		return ErrTie
	}
	return nil
}

// recordTime records the time of the accepted initiation, for checkReplay.
func (in *initiation) recordTime() {
	r := in.remote
	r.acceptedAt = in.at
	if in.payload.time > r.newestTime {
		r.newestTime = in.payload.time
	} else {
		r.lateTime, r.lateAt = in.payload.time, in.at
	}
}

// respond makes the session, which the peer has to confirm, and sends the response.
func (in *initiation) respond() error {
	n, r := in.node, in.remote
	chosen, err := Choose(n.cfg.Offer, in.payload.offer)
	if err != nil {
		r.err = ErrCipher
		return ErrCipher
	}
	trusted := n.cfg.Trusted.Contains(in.from.Addr())
	s := &Session{
		peer: r.ID, remote: in.msg.Sender, cipher: chosen, plain: in.payload.plain && trusted, trusted: trusted,
		secret: in.secret.Fingerprint, created: in.at, answered: in.from,
	}
	if s.local, err = n.newIndex(); err != nil {
		return err
	}
	if err := in.state.SetPresharedKey(in.secret.Key[:]); err != nil {
		return err
	}
	message, toResponder, toInitiator, err := in.state.WriteMessage(nil, responsePayload{cipher: chosen, plain: trusted}.encode())
	if err != nil {
		return ErrForged // a key of low order
	}
	if err := s.setKeys(toResponder, toInitiator, n.cfg.StandardAES); err != nil {
		return err
	}
	n.table.remove(r.next)
	n.table.add(s)
	r.next = s
	n.scheduleSweep(in.at)
	datagram := wire.Response{Receiver: in.msg.Sender, Sender: s.local, Noise: message}.Append(make([]byte, 0, wire.ResponseLen))
	first := mac(receiverKey(labelMAC, r.Public, in.secret.Key), datagram)
	n.send(in.from, append(datagram, first[:]...))
	return nil
}

// ConfirmSession records that the first datagram of s was opened at now (Session.Confirm): the peer has the session as
// well.
func (n *Node) ConfirmSession(s *Session, now time.Time) {
	r := n.remotes[s.peer]
	if r == nil || r.next != s {
		return
	}
	// If s was made before the peer's response to this node's own handshake came, both ends began at the same time and
	// responded to each other. Both then send by the session that the node with the lower ID began.
	cur := r.current
	simultaneous := cur != nil && cur.initiator && !s.created.After(cur.created)
	if simultaneous && n.self.Compare(r.ID) < 0 {
		n.table.remove(r.previous)
		r.previous, r.next, r.replacedAt = s, nil, now
		return
	}
	n.installSession(r, s, now)
}

// HandleUnknownSession is called for a datagram with the header h of a session that does not exist, perhaps because
// this node was restarted. It sends an unknown-session notice to from, within a limit, so that the sender starts a new
// handshake. The notice holds only bytes of the datagram, and fewer of them.
func (n *Node) HandleUnknownSession(h wire.Header, from netip.AddrPort, now time.Time) {
	if h.Session == 0 || !n.limiter.notices.Allow(now) {
		return
	}
	b := make([]byte, wire.HeaderLen)
	wire.Header{Type: wire.TypeUnknown, Session: h.Session, Counter: h.Counter}.Put(b)
	n.send(from, b)
}

// handleUnknownNotice starts a new handshake with a peer that reports not to have the session of a datagram of this
// node, because it was restarted. The notice is not authenticated, so the old session is kept until the new one exists.
func (n *Node) handleUnknownNotice(h wire.Header, now time.Time) error {
	if !n.limiter.resets.Allow(now) {
		return ErrBusy
	}
	for _, r := range n.remotes {
		if p := r.previous; p != nil && p.remote == h.Session {
			return ErrLate // a new session has replaced it already
		}
		s := r.current
		if s == nil || s.remote != h.Session {
			continue
		}
		if number := h.Counter - s.sealFrom; number >= s.counters.Load() {
			continue // no datagram of this node has this counter
		}
		if a := r.attempt; a == nil || now.Sub(a.sentAt) >= firstPause { // the peer is reachable: no longer pause is needed
			n.sendInitiation(r, now)
		}
		return nil
	}
	return ErrUnexpected
}
