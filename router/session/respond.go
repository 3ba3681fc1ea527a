package session

import (
	"errors"
	"net/netip"
	"time"

	"github.com/flynn/noise"

	"weft/internal/peer"
	"weft/router/wire"
)

// Times of initiations that come.
const (
	// peerPause is the shortest time between two from one peer.
	peerPause = 20 * time.Millisecond
	// tieTime is how long after its first initiation of an attempt a node insists on it.
	tieTime = 250 * time.Millisecond
)

// Errors of Receive, each a reason to drop a message and to count it. They are returned as they are, and so are those of
// package wire and ErrForged, ErrCipher and ErrReplayed.
var (
	// ErrSecret: the sender does not know this node's key, or has no secret in common with it.
	ErrSecret = errors.New("session: no common secret")
	// ErrBusy: too many messages at once; its sender has got a cookie, or will try again.
	ErrBusy = errors.New("session: too many handshakes")
	// ErrStranger: the sender is none of the peers.
	ErrUnknownPeer = errors.New("session: from a stranger")
	// ErrUnexpected: it answers what was not asked.
	ErrUnexpected = errors.New("session: an answer to nothing")
	// ErrTie: both ends began at once, and this node's handshake goes on.
	ErrTie = errors.New("session: both have begun")
)

// Receive takes a message of a handshake that came from an address at now. It does not keep b. The error says why it
// came to nothing.
func (n *Node) Receive(b []byte, from netip.AddrPort, now time.Time) error {
	h, _, err := wire.Parse(b)
	if err != nil {
		return err
	}
	switch h.Type {
	case wire.TypeInitiation:
		return n.respond(b, from, now)
	case wire.TypeResponse:
		return n.response(b, now)
	case wire.TypeCookie:
		return n.cookie(b, now)
	case wire.TypeUnknown:
		if len(b) != wire.HeaderLen {
			return wire.ErrHandshake
		}
		return n.unknown(h, now)
	default:
		return wire.ErrType
	}
}

// respond takes an initiation: the cheapest check first.
func (n *Node) respond(b []byte, from netip.AddrPort, now time.Time) error {
	m, err := wire.ParseInitiation(b)
	if err != nil {
		return err
	}
	own := n.secretOf(b[:len(b)-2*wire.MACLen], m.First)
	if own == nil {
		return ErrSecret
	}
	proven, err := n.gate.admit(n, own, m, b, from, now)
	if err != nil {
		return err
	}
	return n.complete(own, m, proven, from, now)
}

// secretOf returns the secret that the sender of an initiation has used, or nil.
func (n *Node) secretOf(covered, given []byte) *ownSecret {
	for i := range n.secrets {
		if equalMAC(mac(n.secrets[i].mac, covered), given) {
			return &n.secrets[i]
		}
	}
	return nil
}

// complete does the work of an initiation that was let in: where it is one that this node answers, it does so.
func (n *Node) complete(own *ownSecret, m wire.Initiation, proven bool, from netip.AddrPort, now time.Time) error {
	state, err := n.party.begin(nil)
	if err != nil {
		return err
	}
	sealed, _, _, err := state.ReadMessage(nil, m.Noise)
	if err != nil {
		return ErrForged
	}
	said, err := parseInitiationPayload(sealed)
	if err != nil {
		return err
	}
	public := [KeyLen]byte(state.PeerStatic())
	r := n.remotes[said.sender]
	if r == nil || r.Public != public || said.sender != peer.FromPublicKey(public) {
		return ErrUnknownPeer
	}
	if err := n.timely(r, own, said, m, proven, from, now); err != nil {
		return err
	}
	if a := r.attempt; a != nil && n.self.Compare(r.ID) > 0 {
		n.abandon(r) // both have begun: the one with the lower ID goes on
	} else if a != nil && a.number == 1 && recent(a.sentAt, tieTime, now) && said.time > r.newest {
		return ErrTie
	}
	if r.takenAt = now; said.time > r.newest {
		r.newest = said.time
	} else {
		r.late, r.lateAt = said.time, now
	}
	return n.answer(r, own, state, m.Sender, said, from, now)
}

// answer makes the session that a peer has begun and has to confirm, and sends the response. state has read the
// initiation, which named the session sender.
func (n *Node) answer(r *remote, own *ownSecret, state *noise.HandshakeState, sender uint32, said initiationPayload, from netip.AddrPort, now time.Time) error {
	chosen, err := Choose(n.cfg.Offer, said.offer)
	if err != nil {
		r.err = ErrCipher
		return ErrCipher
	}
	trusted := n.cfg.Trusts(from.Addr())
	s := &Session{
		peer: r.ID, remote: sender, cipher: chosen, plain: said.plain && trusted, trusted: trusted,
		secret: own.Fingerprint, created: now,
	}
	if s.local, err = n.newIndex(); err != nil {
		return err
	}
	if err := state.SetPresharedKey(own.Key[:]); err != nil {
		return err
	}
	message, toResponder, toInitiator, err := state.WriteMessage(nil, responsePayload{cipher: chosen, plain: trusted}.encode())
	if err != nil {
		return ErrForged // a key of low order
	}
	if err := s.arm(toResponder, toInitiator); err != nil {
		return err
	}
	n.table.remove(r.next)
	n.table.add(s)
	r.next = s
	n.schedule(now)
	datagram := wire.Response{Receiver: sender, Sender: s.local, Noise: message}.Append(make([]byte, 0, wire.ResponseLen))
	first := mac(receiverKey(labelMAC, r.Public, own.Key), datagram)
	n.send(from, append(datagram, first[:]...))
	return nil
}

// timely refuses what was recorded. A peer whose clock was set back gets a cookie, by which it shows that its initiation
// is new nonetheless: of those, too, each has to be later than the one before, for as long as a cookie is good.
func (n *Node) timely(r *remote, own *ownSecret, said initiationPayload, m wire.Initiation, proven bool, from netip.AddrPort, now time.Time) error {
	if said.time == r.newest || said.time <= r.late && recent(r.lateAt, 2*cookieAge, now) {
		return ErrReplayed
	}
	if pause := now.Sub(r.takenAt); pause >= 0 && pause < peerPause && !r.takenAt.IsZero() {
		return ErrBusy
	}
	// After a start nothing is known of what came before: it could be any recording.
	if (said.time < r.newest || r.newest == 0 && said.time < n.started) && !proven {
		return errors.Join(ErrReplayed, n.gate.giveCookie(n, own, m, from, now))
	}
	return nil
}

// Confirm notes that at now the first datagram of a session was opened (Session.Confirm): the peer has it as well.
func (n *Node) ConfirmSession(s *Session, now time.Time) {
	r := n.remotes[s.peer]
	if r == nil || r.next != s {
		return
	}
	// Where this one was made before the peer's answer came to a handshake of this node's own, both have begun at once
	// and answered each other: the session that the node with the lower ID began is the one that both send by.
	cur := r.current
	crossed := cur != nil && cur.initiator && !s.created.After(cur.created)
	if crossed && n.self.Compare(r.ID) < 0 {
		n.table.remove(r.previous)
		r.previous, r.next, r.switchedAt = s, nil, now
		return
	}
	n.install(r, s, now)
}

// Stray notes that a datagram has come for a session that is not there: this node was restarted, perhaps. Its sender is
// told, so that it begins another one. It is told only what it has sent itself, and less of it.
func (n *Node) HandleUnknownSession(h wire.Header, from netip.AddrPort, now time.Time) {
	if h.Session == 0 || !n.gate.strays.take(now) {
		return
	}
	b := make([]byte, wire.HeaderLen)
	wire.Header{Type: wire.TypeUnknown, Session: h.Session, Counter: h.Counter}.Put(b)
	n.send(from, b)
}

// unknown takes a peer's word that it does not have the session of a datagram of this node's: it has been restarted. The
// old session stays until there is a new one, for what if it is not true.
func (n *Node) unknown(h wire.Header, now time.Time) error {
	if !n.gate.unknown.take(now) {
		return ErrBusy
	}
	for _, r := range n.remotes {
		s := r.current
		if s == nil || s.remote != h.Session {
			continue
		}
		if number := h.Counter - s.sealFrom; number >= s.counters.Load() {
			continue // made up
		}
		if a := r.attempt; a == nil || now.Sub(a.sentAt) >= firstPause { // it is there, and need not be waited for
			n.initiate(r, now)
		}
		return nil
	}
	return ErrUnexpected
}
