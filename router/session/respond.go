package session

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"time"

	"weft/internal/peer"
	"weft/router/wire"
)

// Bounds of what initiations may cost. A handshake is five multiplications on Curve25519, a quarter of a millisecond.
const (
	// freeRate and freeBurst are how many a second, and at once, are answered without a cookie.
	freeRate, freeBurst = 100, 200
	// addressRate and addressBurst are the same for those with a cookie, from one address.
	addressRate, addressBurst = 20, 20
	// cookieRate and cookieBurst are how many cookies are given.
	cookieRate, cookieBurst = 2000, 500
	// peerPause is the shortest time between two from one peer.
	peerPause = 20 * time.Millisecond
	// unknownRate and unknownBurst are how many times a peer's word is listened to that it does not know a session.
	unknownRate, unknownBurst = 100, 100
	// strayRate and strayBurst are how many senders are told so.
	strayRate, strayBurst = 1000, 200
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
	ErrStranger = errors.New("session: from a stranger")
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

// complete does the work of an initiation that was let in: it makes the session that the peer has to confirm, and sends
// the response.
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
		return ErrStranger
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
	chosen, err := Choose(n.cfg.Offer, said.offer)
	if err != nil {
		r.err = ErrCipher
		return ErrCipher
	}
	trusted := n.cfg.Trusts(from.Addr())
	s := &Session{
		peer: r.ID, remote: m.Sender, cipher: chosen, plain: said.plain && trusted, trusted: trusted,
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
	datagram := wire.Response{Receiver: m.Sender, Sender: s.local, Noise: message}.Append(make([]byte, 0, wire.ResponseLen))
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
func (n *Node) Confirm(s *Session, now time.Time) {
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
func (n *Node) Stray(h wire.Header, from netip.AddrPort, now time.Time) {
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

// gate keeps strangers from costing anything: it lets in a bounded number of initiations, of those who have shown that
// they are where they say they are once there are too many. Its memory is constant.
type gate struct {
	baker   baker
	free    bucket
	cookies bucket
	unknown bucket
	strays  bucket
	// addresses are buckets by a hash of the address: those who collide share one.
	addresses [256]bucket
}

func newGate(random io.Reader) gate {
	g := gate{
		baker: baker{rand: random},
		free:  newBucket(freeRate, freeBurst), cookies: newBucket(cookieRate, cookieBurst), unknown: newBucket(unknownRate, unknownBurst),
		strays: newBucket(strayRate, strayBurst),
	}
	for i := range g.addresses {
		g.addresses[i] = newBucket(addressRate, addressBurst)
	}
	return g
}

// admit reports whether the initiation m may cost a handshake, and whether its sender has shown that it receives what
// is sent to from. Where there are too many, it is given a cookie.
func (g *gate) admit(n *Node, own *ownSecret, m wire.Initiation, b []byte, from netip.AddrPort, now time.Time) (proven bool, err error) {
	if err := g.baker.turn(now); err != nil {
		return false, err
	}
	if g.baker.knows(from, b) {
		if !g.addresses[g.hash(from.Addr())].take(now) {
			return true, ErrBusy
		}
		return true, nil
	}
	if g.free.take(now) {
		return false, nil
	}
	return false, errors.Join(ErrBusy, g.giveCookie(n, own, m, from, now))
}

func (g *gate) giveCookie(n *Node, own *ownSecret, m wire.Initiation, from netip.AddrPort, now time.Time) error {
	if !g.cookies.take(now) {
		return nil
	}
	datagram, err := g.baker.bake(own.cookie, from, m)
	if err != nil {
		return fmt.Errorf("session: cookie: %w", err)
	}
	n.send(from, datagram)
	return nil
}

func (g *gate) hash(addr netip.Addr) int {
	text := addr.As16()
	sum := mac(g.baker.now, text[:])
	return int(sum[0])
}
