package session

import (
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"net/netip"
	"slices"
	"time"

	"github.com/flynn/noise"
	"golang.org/x/crypto/curve25519"

	"weft/internal/peer"
	"weft/router/wire"
)

// ErrConfig is wrapped by NewNode's error for an invalid Config.
var ErrConfig = errors.New("bad configuration")

// Secret is a key that the nodes of a network share. The zero Secret stands for no secret.
type Secret struct {
	// Key is mixed into every handshake.
	Key [KeyLen]byte
	// Fingerprint identifies the secret among the nodes that have it.
	Fingerprint uint32
}

// Config is the configuration of a Node.
type Config struct {
	// Private is this node's static X25519 key.
	Private [KeyLen]byte
	// Cluster is the name of the network. Nodes with different names make no session.
	Cluster string
	// Secrets are tried in this order in the handshakes that this node begins; those of peers may use any of them. An
	// empty list stands for the zero Secret.
	Secrets []Secret
	// Offer is the set of ciphers that this node may use.
	Offer Offer
	// StandardAES makes AES-256-GCM that of the standard library, also on CPUs where package vaesgcm is faster. Both seal alike,
	// so a peer does not notice.
	StandardAES bool
	// Trusted are the addresses to and from which this node allows frames to be sent unsealed.
	Trusted TrustList
	// Random is the source of unpredictable bytes; nil stands for crypto/rand.
	Random io.Reader
}

// Peer describes another node.
type Peer struct {
	ID     peer.ID
	Public [KeyLen]byte
	// Addr is the address that the peer announces. If it is not valid, only the peer can begin a session. While there is a
	// session, datagrams do not go to another Addr before the peer has answered from there.
	Addr netip.AddrPort
	// Proven is where the peer has answered last, other than over a relay; not valid: nowhere. A peer with a RelayEndpoint is
	// expected there when it has none any more.
	Proven netip.AddrPort
	// RelayEndpoint is the relayed endpoint of a peer that is not reached at Addr; Addr is still tried from time to
	// time. Not valid for a peer that needs no relay.
	RelayEndpoint netip.AddrPort
	// Accepts are the fingerprints of the secrets that the peer accepts, in any order; nil if they are not known.
	Accepts []uint32
}

// configured returns the destination of datagrams for p before it has answered anywhere.
func (p *Peer) configured() netip.AddrPort {
	switch {
	case p.RelayEndpoint.IsValid():
		return p.RelayEndpoint
	case p.Proven.IsValid():
		return p.Proven
	default:
		return p.Addr
	}
}

// Message is a datagram to send. The caller of Drain owns it.
type Message struct {
	To       netip.AddrPort
	Datagram []byte
}

// Change reports the session that seals for a peer from now on, nil for none, and the endpoint of the peer.
type Change struct {
	Peer    peer.ID
	Session *Session
	Addr    netip.AddrPort
}

// Node is this node's side of all its sessions. Lookup may be called from any goroutine, all other methods from one
// goroutine at a time. Their time arguments should carry the monotonic clock.
//
// After any call, Drain returns the messages and changes that resulted from it.
type Node struct {
	// Constant.
	self   peer.ID
	public [KeyLen]byte
	party  party
	cfg    Config

	secrets []ownSecret
	remotes map[peer.ID]*remote
	pending map[uint32]*remote // peers with a handshake that this node began, by its index
	ended   endedAttempts
	limiter rateLimiter
	cookies cookieChecker
	jitter  *mathrand.Rand
	lastNow int64 // the time in the last initiation
	started int64 // time of the first SetPeers, in nanoseconds of Unix time
	sweepAt time.Time

	table table

	messages []Message
	changes  []Change
}

// ownSecret is a secret and the keys derived from it for messages to this node.
type ownSecret struct {
	Secret
	mac, cookie [KeyLen]byte
}

// NewNode returns a Node without peers. The error wraps ErrConfig, or the error of Config.Random.
func NewNode(cfg Config) (*Node, error) {
	if cfg.Offer&(offerAES|offerChaCha) == 0 {
		return nil, fmt.Errorf("session: %w: Offer has no cipher", ErrConfig)
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	public, err := curve25519.X25519(cfg.Private[:], curve25519.Basepoint)
	if err != nil {
		return nil, fmt.Errorf("session: %w: Private: %w", ErrConfig, err)
	}
	var seed [32]byte
	if _, err := io.ReadFull(cfg.Random, seed[:]); err != nil {
		return nil, fmt.Errorf("session: random numbers: %w", err)
	}
	n := &Node{
		public: [KeyLen]byte(public), cfg: cfg,
		remotes: map[peer.ID]*remote{}, pending: map[uint32]*remote{},
		limiter: newRateLimiter(), cookies: cookieChecker{rand: cfg.Random}, jitter: mathrand.New(mathrand.NewChaCha8(seed)),
	}
	n.self = peer.FromPublicKey(n.public)
	n.party = party{
		static: noise.DHKey{Private: cfg.Private[:], Public: public}, prologue: prologue(cfg.Cluster, n.self), random: cfg.Random,
	}
	n.table.init()
	n.setSecrets(cfg.Secrets)
	return n, nil
}

// ID returns the ID that is derived from this node's public key.
func (n *Node) ID() peer.ID { return n.self }

// Lookup returns the session with the index that a datagram for this node has, or nil.
func (n *Node) Lookup(index uint32) *Session { return n.table.lookup(index) }

// Drain returns and removes the messages to send and the changes since the last call, both in order.
func (n *Node) Drain() ([]Message, []Change) {
	messages, changes := n.messages, n.changes
	n.messages, n.changes = nil, nil
	return messages, changes
}

// SetPeers replaces the peers. This node itself may be among them and is ignored. All sessions with a peer that is no
// longer among them end. The endpoint of a peer with another address changes to it if there is no session with the peer;
// if there is one, the next handshake tries that address first.
func (n *Node) SetPeers(peers []Peer, now time.Time) {
	if n.started == 0 {
		n.started = now.UnixNano()
	}
	present := make(map[peer.ID]bool, len(peers))
	for _, p := range peers {
		p.Addr = netip.AddrPortFrom(p.Addr.Addr().Unmap(), p.Addr.Port())
		if p.ID == n.self || p.ID.IsZero() {
			continue
		}
		present[p.ID] = true
		r := n.remotes[p.ID]
		if r != nil && r.Public != p.Public {
			n.dropSessions(r)
			r = nil
		}
		if r == nil {
			r = &remote{Peer: p, endpoint: p.configured()}
			n.remotes[p.ID] = r
		}
		n.updatePeer(r, p, now)
	}
	for _, r := range n.sorted() {
		if !present[r.ID] {
			n.dropSessions(r)
			delete(n.remotes, r.ID)
		}
	}
}

// updatePeer replaces the description of r.
func (n *Node) updatePeer(r *remote, p Peer, now time.Time) {
	switch {
	case r.RelayEndpoint != p.RelayEndpoint:
		r.endpoint = p.configured()
		n.checkTrust(r, now)
	case r.Addr == p.Addr || p.RelayEndpoint.IsValid():
	case r.current == nil:
		r.endpoint = p.Addr
	default:
		r.unproven = true
	}
	others := !slices.Equal(r.Accepts, p.Accepts)
	r.Peer = p
	r.Accepts = slices.Clone(p.Accepts)
	if others {
		n.checkSecret(r, now)
	}
}

// SetSecrets replaces the secrets at now. Sessions made with a removed secret are renewed and end after graceTime.
// Sessions made with a secret that is no longer the first choice are renewed. Handshakes with a removed secret are
// canceled.
func (n *Node) SetSecrets(secrets []Secret, now time.Time) {
	n.setSecrets(secrets)
	for _, r := range n.sorted() {
		if r.attempt != nil && !n.hasSecret(r.attempt.secret.Fingerprint) {
			n.cancelHandshake(r) // the sweep begins another one if a frame waits for it
		}
		if r.next != nil && !n.hasSecret(r.next.secret) {
			n.table.remove(r.next)
			r.next = nil
		}
		r.endAt = time.Time{}
		if r.current != nil && !n.hasSecret(r.current.secret) {
			r.endAt = now.Add(graceTime)
		}
		n.checkSecret(r, now)
	}
	n.sweepAt = now
}

// checkSecret schedules the renewal of the current session if its secret is not this node's first choice.
func (n *Node) checkSecret(r *remote, now time.Time) {
	if r.current != nil && r.current.secret != n.secretFor(r, 0).Fingerprint {
		r.renewAt = now.Add(n.randomBelow(renewSpread))
		n.scheduleSweep(now)
	}
}

func (n *Node) setSecrets(secrets []Secret) {
	if len(secrets) == 0 {
		secrets = []Secret{{}}
	}
	n.secrets = n.secrets[:0]
	for _, s := range secrets {
		n.secrets = append(n.secrets, ownSecret{
			Secret: s, mac: receiverKey(labelMAC, n.public, s.Key), cookie: receiverKey(labelCookie, n.public, s.Key),
		})
	}
}

// SetTrusted replaces Config.Trusted at now. Sessions for which the decision changes are renewed.
func (n *Node) SetTrusted(trusted TrustList, now time.Time) {
	n.cfg.Trusted = trusted
	for _, r := range n.sorted() {
		n.checkTrust(r, now)
	}
}

func (n *Node) hasSecret(fingerprint uint32) bool {
	return slices.ContainsFunc(n.secrets, func(s ownSecret) bool { return s.Fingerprint == fingerprint })
}

// secretFor returns the secret for the initiation of the given number: the first one that the peer accepts, or if none
// is known to be accepted, each in turn. It is the same for two initiations in a row, as these go to two addresses.
func (n *Node) secretFor(r *remote, number int) Secret {
	for _, s := range n.secrets {
		if slices.Contains(r.Accepts, s.Fingerprint) {
			return s.Secret
		}
	}
	return n.secrets[number/2%len(n.secrets)].Secret
}

// RequestSession starts a handshake with a peer for a frame that waits for a session at now. Call it for every such
// frame: handshakes are retried for requestTime after the last call.
func (n *Node) RequestSession(id peer.ID, now time.Time) {
	r := n.remotes[id]
	if r == nil || r.current != nil {
		return
	}
	r.requestedUntil = now.Add(requestTime)
	n.scheduleSweep(now)
	n.startHandshake(r, now)
}

// UpdateEndpoint sets the endpoint of a peer to addr, where the peer has answered.
func (n *Node) UpdateEndpoint(id peer.ID, addr netip.AddrPort, now time.Time) {
	if r := n.remotes[id]; r != nil {
		r.endpoint = addr
		r.unproven = r.unproven && addr != r.Addr
		n.checkTrust(r, now)
	}
}

// Unanswered returns the peers for which at least least initiations in a row had no response, in any order.
func (n *Node) Unanswered(least int) []peer.ID {
	var ids []peer.ID
	for _, r := range n.pending {
		if r.attempt.number > least { // the last one was only just sent
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// Silent returns the peers that sent nothing since a frame that this node sent to them at least d ago, in any order.
func (n *Node) Silent(d time.Duration, now time.Time) []peer.ID {
	var ids []peer.ID
	for id, r := range n.remotes {
		if r.current != nil && !r.unansweredSince.IsZero() && now.Sub(r.unansweredSince) >= d {
			ids = append(ids, id)
		}
	}
	return ids
}

// Info is the state of the sessions with a peer.
type Info struct {
	// Session is the session that seals for the peer, nil for none.
	Session *Session
	// Attempts is the number of initiations that this node sent in a row without a response.
	Attempts int
	// Err is why the last handshake failed, if this node knows: ErrCipher, or no random bytes. A new session clears it.
	Err error
	Counts
}

// Counts are the counters of a peer since SetPeers added it.
type Counts struct {
	Initiations uint64 // initiations sent
	Sessions    uint64 // sessions made, by either side
	Rekeys      uint64 // of these, sessions that replaced another
}

// Info returns the state of the sessions with the peer id, the zero Info for no peer.
func (n *Node) Info(id peer.ID) Info {
	r := n.remotes[id]
	if r == nil {
		return Info{}
	}
	info := Info{Session: r.current, Err: r.err, Counts: r.counts}
	if r.attempt != nil {
		info.Attempts = r.attempt.number
	}
	return info
}

// newIndex returns a random index that no session and no handshake of this node has.
func (n *Node) newIndex() (uint32, error) {
	var b [4]byte
	for {
		if _, err := io.ReadFull(n.cfg.Random, b[:]); err != nil {
			return 0, fmt.Errorf("session: random numbers: %w", err)
		}
		index := (uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])) & wire.MaxSession
		if index != 0 && n.Lookup(index) == nil && n.pending[index] == nil {
			return index, nil
		}
	}
}

// nextTime returns the time for an initiation, later than in all initiations before it.
func (n *Node) nextTime(now time.Time) int64 {
	n.lastNow = max(now.UnixNano(), n.lastNow+1)
	return n.lastNow
}

// randomBelow returns a random duration below d.
func (n *Node) randomBelow(d time.Duration) time.Duration {
	return time.Duration(n.jitter.Int64N(int64(d)))
}

func (n *Node) send(to netip.AddrPort, datagram []byte) {
	if to.IsValid() {
		n.messages = append(n.messages, Message{To: to, Datagram: datagram})
	}
}

// sorted returns the remotes in the order of their IDs, so that equal inputs give equal outputs.
func (n *Node) sorted() []*remote {
	all := make([]*remote, 0, len(n.remotes))
	for _, r := range n.remotes {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *remote) int { return a.ID.Compare(b.ID) })
	return all
}
