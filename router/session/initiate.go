package session

import (
	"net/netip"
	"time"

	"github.com/flynn/noise"

	"weft/router/wire"
)

// Pauses between the initiations of one attempt: each is twice as long as the one before, and varied by a quarter.
const (
	firstPause   = 300 * time.Millisecond
	longestPause = 5 * time.Second
)

// attempt is a handshake that this node began and that has no response yet. Each initiation of it has new ephemeral
// keys.
type attempt struct {
	number  int // of initiations sent
	sentAt  time.Time
	retryAt time.Time
	pause   time.Duration

	state  *noise.HandshakeState
	index  uint32
	secret Secret
	first  [wire.MACLen]byte // the first MAC of the initiation, which a cookie reply is bound to
	to     netip.AddrPort
	plain  bool // what the initiation offers: to is trusted, so frames need not be sealed
	cookie bool // an initiation was sent at once because of a cookie
}

// startHandshake begins a handshake with r, unless one is under way or the peer is about to confirm one that it began.
func (n *Node) startHandshake(r *remote, now time.Time) {
	unconfirmed := r.next != nil && recent(r.next.created, firstPause, now)
	if r.attempt == nil && !unconfirmed {
		n.sendInitiation(r, now)
	}
}

// sendInitiation sends an initiation to r: the first of an attempt, or the next one.
func (n *Node) sendInitiation(r *remote, now time.Time) {
	a := r.attempt
	if a == nil {
		a = &attempt{pause: firstPause}
	}
	if a.number > 0 {
		n.ended.put(a.index, now)
	}
	delete(n.pending, a.index)
	a.to = r.endpoint
	if (a.number%2 == 1) != r.unproven && r.Addr.IsValid() {
		a.to = r.Addr // the peer may have returned to its configured address
	}
	if !a.to.IsValid() {
		n.cancelHandshake(r) // only the peer can begin
		return
	}
	a.secret, a.plain = n.secretFor(r, a.number), n.cfg.Trusted.Contains(a.to.Addr())
	datagram, err := n.newInitiation(r, a, now)
	if err != nil {
		r.attempt, r.err = nil, err // only without random numbers, or if the peer's key is invalid
		return
	}
	a.number++
	r.counts.Initiations++
	a.sentAt, a.retryAt = now, now.Add(a.pause*3/4+n.randomBelow(a.pause/2))
	a.pause = min(2*a.pause, longestPause)
	r.attempt, n.pending[a.index] = a, r
	n.send(a.to, datagram)
}

// newInitiation returns the first message of a handshake, and sets in a the state that waits for the second.
func (n *Node) newInitiation(r *remote, a *attempt, now time.Time) ([]byte, error) {
	with := n.party
	with.prologue = prologue(n.cfg.Cluster, r.ID)
	state, err := with.newHandshake(r.Public[:])
	if err != nil {
		return nil, err
	}
	if err := state.SetPresharedKey(a.secret.Key[:]); err != nil {
		return nil, err
	}
	if a.index, err = n.newIndex(); err != nil {
		return nil, err
	}
	payload := initiationPayload{time: n.nextTime(now), sender: n.self, offer: n.cfg.Offer, plain: a.plain}
	message, _, _, err := state.WriteMessage(nil, payload.encode())
	if err != nil {
		return nil, err
	}
	a.state = state
	datagram := wire.Initiation{Sender: a.index, Noise: message}.Append(make([]byte, 0, wire.InitiationLen))
	a.first = mac(receiverKey(labelMAC, r.Public, a.secret.Key), datagram)
	datagram = append(datagram, a.first[:]...)
	var second [wire.MACLen]byte
	if age := now.Sub(r.cookieAt); !r.cookieAt.IsZero() && age >= 0 && age < cookieAge {
		second = secondMAC(r.cookie, datagram)
	}
	return append(datagram, second[:]...), nil
}

// cancelHandshake ends the handshake that this node began with r, if there is one.
func (n *Node) cancelHandshake(r *remote) {
	if r.attempt != nil {
		delete(n.pending, r.attempt.index)
		r.attempt = nil
	}
}

// handleResponse completes a session with the response to an initiation of this node. A keepalive then shows the peer
// that the session is complete.
func (n *Node) handleResponse(b []byte, now time.Time) error {
	m, err := wire.ParseResponse(b)
	if err != nil {
		return err
	}
	r := n.pending[m.Receiver]
	if r == nil {
		return n.replyToNothing(m.Receiver, now)
	}
	a := r.attempt
	if !equalMAC(mac(receiverKey(labelMAC, n.public, a.secret.Key), b[:len(b)-wire.MACLen]), m.First) {
		return ErrSecret
	}
	sealed, toResponder, toInitiator, err := a.state.ReadMessage(nil, m.Noise)
	if err != nil {
		return ErrForged
	}
	payload, err := parseResponsePayload(sealed)
	if err != nil {
		return err
	}
	if payload.cipher.offer()&n.cfg.Offer == 0 {
		r.err = ErrCipher
		return ErrCipher
	}
	s := &Session{
		peer: r.ID, local: a.index, remote: m.Sender, cipher: payload.cipher, plain: a.plain && payload.plain, trusted: a.plain,
		initiator: true, secret: a.secret.Fingerprint, created: now,
	}
	if err := s.setKeys(toResponder, toInitiator, n.cfg.StandardAES); err != nil {
		return err
	}
	r.endpoint, r.unproven = a.to, false
	n.cancelHandshake(r)
	n.table.add(s)
	n.installSession(r, s, now)
	if r.RelayEndpoint.IsValid() {
		r.endpoint = r.RelayEndpoint // the router, which sees the path of the response, decides whether the relay is still needed
	}
	return nil
}

// handleCookie stores the cookie of a cookie reply. It sends the initiation again with the cookie, at once if this is
// the first cookie of the attempt.
func (n *Node) handleCookie(b []byte, now time.Time) error {
	m, err := wire.ParseCookie(b)
	if err != nil {
		return err
	}
	r := n.pending[m.Receiver]
	if r == nil {
		return n.replyToNothing(m.Receiver, now)
	}
	cookie, err := openCookie(receiverKey(labelCookie, r.Public, r.attempt.secret.Key), m, r.attempt.first[:])
	if err != nil {
		return err
	}
	r.cookie, r.cookieAt = cookie, now
	if a := r.attempt; !a.cookie { // further cookies wait for the next retry
		a.cookie = true
		a.number-- // the same again: to the same address, with the same secret
		n.sendInitiation(r, now)
	}
	return nil
}
