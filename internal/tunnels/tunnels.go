// Package tunnels makes the tunnels of WireGuard to the peers of this node: it exchanges keys with those with which there is a session, and
// gives the device what comes out of it. A tunnel ends with the secret of the session.
package tunnels

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"weft/internal/peer"
	"weft/router/carrier/wireguard"
)

// tick is the time between two looks at the sessions and the exchanges, and queue how many messages may wait for the next.
const (
	tick  = time.Second
	queue = 256
)

// Member is what Tunnels knows about another node that is alive.
type Member struct {
	ID      peer.ID
	Reached bool // directly, not over a relay
	DialOut bool // it is behind an address translator
	Sealed  bool // frames to it must be
}

// Host is the node around Tunnels. Its methods may be called from any goroutine, and do not call Tunnels, apart from Changed.
type Host interface {
	// Members returns the other nodes that are alive, and Member one of them.
	Members() []Member
	Member(peer.ID) (Member, bool)
	// Known reports whether a node is a member, alive or dead.
	Known(peer.ID) bool
	// DialOut reports whether this node is behind an address translator.
	DialOut() bool
	// Changed is called when there is a tunnel that was not there before, or none any more.
	Changed()
}

// Sessions are the sessions with the other nodes; *router.Engine has them.
type Sessions interface {
	// SendControl sends a message by the session with a peer.
	SendControl(id peer.ID, to uint8, message []byte) error
	// SessionSecret returns the fingerprint of the secret of the session with a peer. ok is false if there is none.
	SessionSecret(id peer.ID) (fingerprint uint32, ok bool)
	// Endpoint returns where a peer is reached; not valid if it is not reached directly.
	Endpoint(id peer.ID) netip.AddrPort
}

// Device is where the tunnels are; *wireguard.Device is one.
type Device interface {
	SetTunnel(peer.ID, wireguard.Tunnel) error
	RemoveTunnel(peer.ID) error
}

// Config is what Tunnels are made of. All fields are required.
type Config struct {
	Self    peer.ID
	Port    uint16 // of WireGuard
	Channel uint8  // of the messages among those of Sessions.SendControl
	Host    Host
	Logger  *slog.Logger
}

// Tunnels are the tunnels of this node. Methods may be called from any goroutine.
type Tunnels struct {
	// constant
	cfg      Config
	log      *slog.Logger
	messages chan message // a sender that finds it full gives up: messages are repeated

	hasMu sync.RWMutex
	has   map[peer.ID]bool // guarded by hasMu: the peers with a tunnel; mu may be held for as long as the device takes

	mu        sync.Mutex
	secrets   []uint32           // guarded by mu: fingerprints of those of this node
	device    Device             // guarded by mu; nil: there is none now
	private   wgtypes.Key        // guarded by mu: of the device
	exchanges map[peer.ID]*state // guarded by mu: with this key
}

// message is one of a peer.
type message struct {
	from peer.ID
	text []byte
}

// state is the exchange with a peer, and the tunnel that has come out of it.
type state struct {
	*wireguard.Exchange
	secret uint32           // the fingerprint of the secret of the session, when the exchange was begun or renewed
	tunnel wireguard.Tunnel // the zero Tunnel: there is none
	made   uint32           // secret, when the tunnel was made or changed
}

// New returns Tunnels without a device.
func New(cfg Config) *Tunnels {
	return &Tunnels{cfg: cfg, log: cfg.Logger, messages: make(chan message, queue), exchanges: map[peer.ID]*state{}, has: map[peer.ID]bool{}}
}

// SetDevice replaces the device, which has no tunnels yet, and a key of its own.
func (t *Tunnels) SetDevice(d Device, private wgtypes.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.device, t.private, t.exchanges = d, private, map[peer.ID]*state{}
	t.hasMu.Lock()
	defer t.hasMu.Unlock()
	clear(t.has)
}

// Has reports whether there is a tunnel to a peer. It does not wait for the device.
func (t *Tunnels) Has(id peer.ID) bool {
	t.hasMu.RLock()
	defer t.hasMu.RUnlock()
	return t.has[id]
}

// setHas sets whether there is a tunnel to a peer.
func (t *Tunnels) setHas(id peer.ID, has bool) {
	t.hasMu.Lock()
	defer t.hasMu.Unlock()
	if has {
		t.has[id] = true
	} else {
		delete(t.has, id)
	}
}

// Received queues a message of a peer. It does not wait, and does not keep text.
func (t *Tunnels) Received(from peer.ID, text []byte) {
	select {
	case t.messages <- message{from, slices.Clone(text)}:
	default:
	}
}

// Run exchanges keys with the peers until ctx ends.
func (t *Tunnels) Run(ctx context.Context, sessions Sessions) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		var changed bool
		select {
		case <-ctx.Done():
			return
		case m := <-t.messages:
			changed = t.handle(sessions, m)
		case <-ticker.C:
			changed = t.look(sessions)
		}
		if changed {
			t.cfg.Host.Changed()
		}
	}
}

// handle handles a message of a peer, and sends the answer. It reports whether there is a tunnel now that was not there before.
func (t *Tunnels) handle(sessions Sessions, in message) (changed bool) {
	m, known := t.cfg.Host.Member(in.from)
	if !known || !m.Sealed {
		return false
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := t.state(sessions, m)
	if s == nil {
		return false
	}
	answer, err := s.Receive(in.text, time.Now())
	if err != nil {
		t.log.Debug("a message about a tunnel is not valid", "peer", in.from, "err", err)
	}
	if answer != nil {
		_ = sessions.SendControl(in.from, t.cfg.Channel, answer) // is repeated
	}
	return t.update(sessions, m, s)
}

// look sends the messages that are due. It reports whether there is a tunnel now that was not there before, or none any more.
func (t *Tunnels) look(sessions Sessions) (changed bool) {
	members := t.cfg.Host.Members()
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.device == nil {
		return false
	}
	for id := range t.exchanges {
		if !t.cfg.Host.Known(id) {
			changed = t.remove(id) || changed
		}
	}
	for _, m := range members {
		if !m.Reached || !m.Sealed {
			continue
		}
		s := t.state(sessions, m)
		if s == nil {
			continue
		}
		if text := s.Next(time.Now()); text != nil {
			_ = sessions.SendControl(m.ID, t.cfg.Channel, text)
		}
		changed = t.update(sessions, m, s) || changed
	}
	return changed
}

// state returns the exchange with a member; nil: there is no session with it by a secret of this node. A session by another secret renews
// the exchange. mu is held.
func (t *Tunnels) state(sessions Sessions, m Member) *state {
	secret, ok := sessions.SessionSecret(m.ID)
	if !ok || t.device == nil || !slices.Contains(t.secrets, secret) {
		return nil
	}
	s := t.exchanges[m.ID]
	switch {
	case s == nil:
		s = &state{Exchange: wireguard.NewExchange(t.cfg.Self, m.ID, t.private, t.cfg.Port, share()), secret: secret}
		t.exchanges[m.ID] = s
	case s.secret != secret:
		s.Renew(t.cfg.Port, share())
		s.secret = secret
	}
	return s
}

// share returns a random part of a preshared key.
func share() (b [32]byte) {
	_, _ = rand.Read(b[:]) // never fails
	return b
}

// update gives the device the tunnel of an exchange. It reports whether there was none before. mu is held.
func (t *Tunnels) update(sessions Sessions, m Member, s *state) (changed bool) {
	if !s.Proven() {
		return false
	}
	tunnel, port := s.Tunnel()
	dialOut := t.cfg.Host.DialOut()
	switch at := sessions.Endpoint(m.ID); {
	case m.DialOut && dialOut:
		return false // neither end can begin
	case !m.DialOut && at.IsValid():
		tunnel.Endpoint = netip.AddrPortFrom(at.Addr().Unmap(), port)
	case !m.DialOut:
		tunnel.Endpoint = s.tunnel.Endpoint
	}
	tunnel.Keepalive = dialOut
	if tunnel == s.tunnel {
		return false
	}
	if err := t.device.SetTunnel(m.ID, tunnel); err != nil {
		if !errors.Is(err, net.ErrClosed) {
			t.log.Warn("cannot set up a tunnel", "peer", m.ID, "err", err)
		}
		return false
	}
	first := s.tunnel == wireguard.Tunnel{}
	s.tunnel, s.made = tunnel, s.secret
	t.setHas(m.ID, true)
	return first
}

// remove forgets a peer, and reports whether there was a tunnel. mu is held.
func (t *Tunnels) remove(id peer.ID) bool {
	s := t.exchanges[id]
	delete(t.exchanges, id)
	return s != nil && t.end(id, s)
}

// end removes the tunnel to a peer, and reports whether there was one. mu is held.
func (t *Tunnels) end(id peer.ID, s *state) bool {
	t.setHas(id, false)
	if t.device == nil || s.tunnel == (wireguard.Tunnel{}) {
		return false
	}
	s.tunnel = wireguard.Tunnel{}
	if err := t.device.RemoveTunnel(id); err != nil && !errors.Is(err, net.ErrClosed) {
		t.log.Warn("cannot remove a tunnel", "peer", id, "err", err)
	}
	return true
}

// SetSecrets sets the fingerprints of the secrets that this node has. Tunnels that were made by another one are removed at once, although
// sessions last a little longer.
func (t *Tunnels) SetSecrets(fingerprints []uint32, sessions Sessions) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.secrets = fingerprints
	for id, s := range t.exchanges {
		now, ok := sessions.SessionSecret(id)
		switch {
		case !ok && !slices.Contains(fingerprints, s.secret), ok && !slices.Contains(fingerprints, now):
			t.remove(id)
		case !slices.Contains(fingerprints, s.made):
			t.end(id, s) // until the exchange by the new secret is complete
		}
	}
}
