package session

import (
	"net/netip"
	"time"

	"github.com/flynn/noise"

	"weft/router/wire"
)

// Pauses between the initiations of one handshake: each is twice as long as the one before, and varied by a quarter.
const (
	firstPause   = 300 * time.Millisecond
	longestPause = 5 * time.Second
)

// attempt is a handshake that this node has begun and that has had no answer yet. Each initiation is made anew.
type attempt struct {
	number  int // of initiations sent
	sentAt  time.Time
	retryAt time.Time
	pause   time.Duration

	state  *noise.HandshakeState
	index  uint32
	secret Secret
	first  [wire.MACLen]byte // the first MAC of the initiation, which a cookie must name
	to     netip.AddrPort
	plain  bool // what the initiation said of sealing: to is trusted
	cookie bool // one was answered at once
}

// initiate sends an initiation to r: the first of an attempt, or the next one.
func (n *Node) initiate(r *remote, now time.Time) {
	a := r.attempt
	if a == nil {
		a = &attempt{pause: firstPause}
	}
	delete(n.waiting, a.index)
	a.to = r.endpoint
	if a.number%2 == 1 && r.Addr.IsValid() {
		a.to = r.Addr // it may be back where it is said to be
	}
	if !a.to.IsValid() {
		n.abandon(r) // it has to begin
		return
	}
	a.secret, a.plain = n.secretFor(r, a.number), n.cfg.Trusts(a.to.Addr())
	datagram, err := n.initiation(r, a, now)
	if err != nil {
		r.attempt, r.err = nil, err // only without random numbers, or to a key that is none
		return
	}
	a.number++
	r.counts.Initiations++
	a.sentAt, a.retryAt = now, now.Add(a.pause*3/4+n.upTo(a.pause/2))
	a.pause = min(2*a.pause, longestPause)
	r.attempt, n.waiting[a.index] = a, r
	n.send(a.to, datagram)
}

// initiation makes the first message of a handshake, and the state that waits for the second.
func (n *Node) initiation(r *remote, a *attempt, now time.Time) ([]byte, error) {
	with := n.party
	with.prologue = prologue(n.cfg.Cluster, r.ID)
	state, err := with.begin(r.Public[:])
	if err != nil {
		return nil, err
	}
	if err := state.SetPresharedKey(a.secret.Key[:]); err != nil {
		return nil, err
	}
	if a.index, err = n.newIndex(); err != nil {
		return nil, err
	}
	payload := initiationPayload{time: n.clock(now), sender: n.self, offer: n.cfg.Offer, plain: a.plain}
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

// abandon gives up a handshake that this node has begun, if there is one.
func (n *Node) abandon(r *remote) {
	if r.attempt != nil {
		delete(n.waiting, r.attempt.index)
		r.attempt = nil
	}
}

// response takes the answer to an initiation: the session is complete, and the peer is told so.
func (n *Node) response(b []byte, now time.Time) error {
	m, err := wire.ParseResponse(b)
	if err != nil {
		return err
	}
	r := n.waiting[m.Receiver]
	if r == nil {
		return ErrUnexpected
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
	if err := s.arm(toResponder, toInitiator); err != nil {
		return err
	}
	r.endpoint = a.to
	n.abandon(r)
	n.table.add(s)
	n.install(r, s, now)
	if r.RelayEndpoint.IsValid() {
		r.endpoint = r.RelayEndpoint // whether there is still need of it others decide, who hear where the answer came by
	}
	return nil
}

// cookie takes a cookie: the initiation is sent again with it, at once where it is the first of the attempt.
func (n *Node) cookie(b []byte, now time.Time) error {
	m, err := wire.ParseCookie(b)
	if err != nil {
		return err
	}
	r := n.waiting[m.Receiver]
	if r == nil {
		return ErrUnexpected
	}
	cookie, err := openCookie(receiverKey(labelCookie, r.Public, r.attempt.secret.Key), m, r.attempt.first[:])
	if err != nil {
		return err
	}
	r.cookie, r.cookieAt = cookie, now
	if a := r.attempt; !a.cookie { // who gives one for each initiation gets the next one when it is due
		a.cookie = true
		a.number-- // once more the same: to the same address, by the same secret
		n.initiate(r, now)
	}
	return nil
}
