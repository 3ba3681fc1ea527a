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

// ErrConfig is wrapped by NewNode's error for a Config that cannot be meant.
var ErrConfig = errors.New("bad configuration")

// Secret is what the nodes of a network share. The zero Secret stands for none.
type Secret struct {
	// Key is mixed into every handshake.
	Key [KeyLen]byte
	// Fingerprint tells secrets apart among those who have them.
	Fingerprint uint32
}

// Config is what a Node is made of.
type Config struct {
	// Private is this node's static X25519 key.
	Private [KeyLen]byte
	// Cluster is the name of the network; nodes of another one make no session.
	Cluster string
	// Secrets are tried in this order where this node begins a handshake, and all taken where another one does; none is
	// the one of those that have none.
	Secrets []Secret
	// Offer is which ciphers this node would use.
	Offer Offer
	// Trusts reports whether frames need not be sealed on the way to and from an address, as far as this node is
	// concerned; nil is never.
	Trusts func(netip.Addr) bool
	// Random gives bytes that nobody can guess; crypto/rand's where nil.
	Random io.Reader
}

// Peer is what must be known of another node.
type Peer struct {
	ID     peer.ID
	Public [KeyLen]byte
	// Addr is where it is reached at first; later it is where its last authenticated datagram came from. Not valid: it
	// can only begin a session itself.
	Addr netip.AddrPort
	// Detour stands for the way to it where it is not reached at Addr, which is tried all the same now and then; not
	// valid: there is no need of one.
	RelayEndpoint netip.AddrPort
	// Accepts are the fingerprints of the secrets that it takes, in no order; nil where that is not known.
	Accepts []uint32
}

// home is where datagrams for p go until it shows that it is elsewhere.
func (p *Peer) home() netip.AddrPort {
	if p.RelayEndpoint.IsValid() {
		return p.RelayEndpoint
	}
	return p.Addr
}

// Message is a datagram to be sent. It is the receiver's to keep.
type Message struct {
	To       netip.AddrPort
	Datagram []byte
}

// Change says what seals for a peer from now on, nil where nothing does, and where the peer is.
type Change struct {
	Peer    peer.ID
	Session *Session
	Addr    netip.AddrPort
}

// Node is one node's side of all its sessions. Lookup may be called from any goroutine; all other methods belong to one
// goroutine at a time. The times given to it should carry the monotonic clock.
//
// After any call, Take returns what has come of it.
type Node struct {
	// Constant.
	self   peer.ID
	public [KeyLen]byte
	party  party
	cfg    Config

	secrets []ownSecret
	remotes map[peer.ID]*remote
	waiting map[uint32]*remote // those with a handshake that this node began, by its index
	gate    gate
	jitter  *mathrand.Rand
	lastNow int64 // the time in the last initiation
	started int64 // when it was first told of peers: nanoseconds of Unix time
	sweepAt time.Time

	table table

	messages []Message
	changes  []Change
}

// OrNever returns trusts, or where that is nil what trusts no address.
func OrNever(trusts func(netip.Addr) bool) func(netip.Addr) bool {
	if trusts == nil {
		return func(netip.Addr) bool { return false }
	}
	return trusts
}

// ownSecret is a secret with what is made of it for messages to this node.
type ownSecret struct {
	Secret
	mac, cookie [KeyLen]byte
}

// NewNode returns a Node that knows nobody. The error wraps ErrConfig, or is that of the source of random bytes.
func NewNode(cfg Config) (*Node, error) {
	if cfg.Offer&(offerAES|offerChaCha) == 0 {
		return nil, fmt.Errorf("session: %w: Offer has no cipher", ErrConfig)
	}
	if cfg.Random == nil {
		cfg.Random = rand.Reader
	}
	cfg.Trusts = OrNever(cfg.Trusts)
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
		remotes: map[peer.ID]*remote{}, waiting: map[uint32]*remote{},
		gate: newGate(cfg.Random), jitter: mathrand.New(mathrand.NewChaCha8(seed)),
	}
	n.self = peer.FromPublicKey(n.public)
	n.party = party{
		static: noise.DHKey{Private: cfg.Private[:], Public: public}, prologue: prologue(cfg.Cluster, n.self), random: cfg.Random,
	}
	n.table.init()
	n.setSecrets(cfg.Secrets)
	return n, nil
}

// ID returns the ID that is made of this node's key.
func (n *Node) ID() peer.ID { return n.self }

// Lookup returns the session for which index stands in datagrams for this node, or nil.
func (n *Node) Lookup(index uint32) *Session { return n.table.lookup(index) }

// Take returns the messages to be sent and the changes since the last call, both in order, and forgets them.
func (n *Node) Drain() ([]Message, []Change) {
	messages, changes := n.messages, n.changes
	n.messages, n.changes = nil, nil
	return messages, changes
}

// SetPeers replaces all that is known of other nodes. This node itself may be among them, and is passed over. Of one
// that is no longer there all sessions end; one with another address is sought there.
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
			n.forget(r)
			r = nil
		}
		if r == nil {
			r = &remote{}
			n.remotes[p.ID] = r
		}
		moved := r.home() != p.home()
		if moved {
			r.endpoint = p.home()
		}
		others := !slices.Equal(r.Accepts, p.Accepts)
		r.Peer = p
		r.Accepts = slices.Clone(p.Accepts)
		if others {
			n.checkSecret(r, now)
		}
		if moved {
			n.checkTrust(r, now)
		}
	}
	for _, r := range n.sorted() {
		if !present[r.ID] {
			n.forget(r)
			delete(n.remotes, r.ID)
		}
	}
}

// SetSecrets replaces the secrets at now. Current sessions made with one that is no longer among them are made anew, and
// end after a short time; those made with one that is no longer the first choice are made anew as well. Handshakes under
// way by one that is no longer there come to nothing.
func (n *Node) SetSecrets(secrets []Secret, now time.Time) {
	n.setSecrets(secrets)
	for _, r := range n.sorted() {
		if r.attempt != nil && !n.has(r.attempt.secret.Fingerprint) {
			n.abandon(r) // what waits for it has another one begun
		}
		if r.next != nil && !n.has(r.next.secret) {
			n.table.remove(r.next)
			r.next = nil
		}
		r.endAt = time.Time{}
		if r.current != nil && !n.has(r.current.secret) {
			r.endAt = now.Add(graceTime)
		}
		n.checkSecret(r, now)
	}
	n.sweepAt = now
}

// checkSecret has the current session made anew where it was made with a secret that is not this node's first choice.
func (n *Node) checkSecret(r *remote, now time.Time) {
	if r.current != nil && r.current.secret != n.secretFor(r, 0).Fingerprint {
		r.renewAt = now.Add(n.upTo(renewSpread))
		n.schedule(now)
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

// SetTrusts replaces Config.Trusts at now; nil is never. Sessions that were agreed on otherwise are made anew.
func (n *Node) SetTrusts(trusts func(netip.Addr) bool, now time.Time) {
	n.cfg.Trusts = OrNever(trusts)
	for _, r := range n.sorted() {
		n.checkTrust(r, now)
	}
}

func (n *Node) has(fingerprint uint32) bool {
	return slices.ContainsFunc(n.secrets, func(s ownSecret) bool { return s.Fingerprint == fingerprint })
}

// secretFor returns the secret with which this node begins a handshake: the first that the other accepts, or where none
// is known to be, each in its turn. It is the same for two initiations in a row, which go to two addresses.
func (n *Node) secretFor(r *remote, number int) Secret {
	for _, s := range n.secrets {
		if slices.Contains(r.Accepts, s.Fingerprint) {
			return s.Secret
		}
	}
	return n.secrets[number/2%len(n.secrets)].Secret
}

// Want notes that at now a frame waits for a session with a peer. It is to be called again for those that come after it.
func (n *Node) RequestSession(id peer.ID, now time.Time) {
	r := n.remotes[id]
	if r == nil || r.current != nil {
		return
	}
	r.wantedUntil = now.Add(wantedFor)
	n.schedule(now)
	n.pursue(r, now)
}

// pursue begins a handshake with r, unless one is under way, or the peer is about to confirm one that it began.
func (n *Node) pursue(r *remote, now time.Time) {
	answered := r.next != nil && recent(r.next.created, firstPause, now)
	if r.attempt == nil && !answered {
		n.initiate(r, now)
	}
}

// Move notes that an authenticated datagram of the peer of s has come from addr, and no later one from elsewhere.
func (n *Node) UpdateEndpoint(s *Session, addr netip.AddrPort, now time.Time) {
	if r := n.remotes[s.peer]; r != nil {
		r.endpoint = addr
		n.checkTrust(r, now)
	}
}

// Unanswered returns the peers with whom at least so many initiations in a row had no answer, in no order.
func (n *Node) Unanswered(least int) []peer.ID {
	var ids []peer.ID
	for _, r := range n.waiting {
		if r.attempt.number > least { // the last one has only just been sent
			ids = append(ids, r.ID)
		}
	}
	return ids
}

// Silent returns the peers from which nothing has come since this node has sent frames, at least d ago, in no order.
func (n *Node) Silent(d time.Duration, now time.Time) []peer.ID {
	var ids []peer.ID
	for id, r := range n.remotes {
		if r.current != nil && !r.unheardFrom.IsZero() && now.Sub(r.unheardFrom) >= d {
			ids = append(ids, id)
		}
	}
	return ids
}

// Info is how it stands with a peer.
type Info struct {
	// Session is what seals for the peer, nil for none.
	Session *Session
	// Attempts is how many handshakes this node has begun in a row without an answer.
	Attempts int
	// Err is why the last handshake came to nothing, where this node knows: ErrCipher, or no random bytes. A session
	// clears it.
	Err error
	Counts
}

// Counts is what has happened with a peer since it was made known.
type Counts struct {
	Initiations uint64 // messages sent to begin a handshake
	Sessions    uint64 // that came about, whoever began
	Rekeys      uint64 // of these, that took the place of another
}

// Info returns how it stands with a peer.
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

// newIndex returns an index that no session of this node and no handshake under way has.
func (n *Node) newIndex() (uint32, error) {
	var b [4]byte
	for {
		if _, err := io.ReadFull(n.cfg.Random, b[:]); err != nil {
			return 0, fmt.Errorf("session: random numbers: %w", err)
		}
		index := (uint32(b[0])<<16 | uint32(b[1])<<8 | uint32(b[2])) & wire.MaxSession
		if index != 0 && n.Lookup(index) == nil && n.waiting[index] == nil {
			return index, nil
		}
	}
}

// clock returns the time for an initiation: later than that in any before it.
func (n *Node) clock(now time.Time) int64 {
	n.lastNow = max(now.UnixNano(), n.lastNow+1)
	return n.lastNow
}

// upTo returns a random duration below d.
func (n *Node) upTo(d time.Duration) time.Duration { return time.Duration(n.jitter.Int64N(int64(d))) }

func (n *Node) send(to netip.AddrPort, datagram []byte) {
	if to.IsValid() {
		n.messages = append(n.messages, Message{To: to, Datagram: datagram})
	}
}

// sorted returns the remotes in the order of their IDs, so that equal histories send in equal order.
func (n *Node) sorted() []*remote {
	all := make([]*remote, 0, len(n.remotes))
	for _, r := range n.remotes {
		all = append(all, r)
	}
	slices.SortFunc(all, func(a, b *remote) int { return a.ID.Compare(b.ID) })
	return all
}
