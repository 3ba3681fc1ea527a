package router

import (
	"context"
	"errors"
	"net/netip"
	"sync"
	"time"

	"weft/internal/peer"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
)

// Bounds of what waits for the goroutine that makes sessions. What comes on top is as good as lost, and is sent again.
const (
	maxMessages = 256
	maxStrays   = 64
	maxWants    = 256
)

// keys makes the engine's sessions: the Node decides, and this brings it what it is told, and takes away what comes of it.
type keys struct {
	node     *session.Node // its Lookup needs no lock; all else is guarded by mu
	mu       sync.Mutex
	messages chan message
	strays   chan stray
	wake     chan struct{} // holds a token while the Node may have something to take, or an earlier deadline
}

// message is one of a handshake, as it came.
type message struct {
	bytes  [wire.InitiationLen]byte // the longest
	length int
	from   netip.AddrPort
}

// stray is a datagram of a session that is not there.
type stray struct {
	header wire.Header
	from   netip.AddrPort
}

func newKeys(cfg session.Config) (*keys, error) {
	node, err := session.NewNode(cfg)
	if err != nil {
		return nil, err
	}
	return &keys{
		node: node, messages: make(chan message, maxMessages), strays: make(chan stray, maxStrays), wake: make(chan struct{}, 1),
	}, nil
}

// locked calls f with the Node.
func (k *keys) locked(f func(*session.Node)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	f(k.node)
}

// with calls f with the Node, and has what comes of it taken.
func (k *keys) with(f func(*session.Node)) {
	k.locked(f)
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

func (k *keys) setPeers(peers *snapshot, now time.Time) {
	list := make([]session.Peer, 0, len(peers.byID))
	for _, h := range peers.byID {
		p := session.Peer{ID: h.ID, Public: h.Public, Addr: h.at, Accepts: h.Accepts}
		if !h.Via.IsZero() {
			p.Addr, p.RelayEndpoint = h.Addr, h.at
		}
		list = append(list, p)
	}
	k.with(func(n *session.Node) { n.SetPeers(list, now) })
}

func (k *keys) info(id peer.ID) session.Info {
	var info session.Info
	k.locked(func(n *session.Node) { info = n.Info(id) })
	return info
}

// deliver keeps a message for the goroutine that makes sessions, so that frames do not wait for its mathematics.
func (k *keys) deliver(b []byte, from netip.AddrPort) Drop {
	m := message{length: len(b), from: from}
	if copy(m.bytes[:], b) < len(b) {
		return DropMetadata
	}
	select {
	case k.messages <- m:
		return 0
	default:
		return DropBusy
	}
}

// stray has the sender of a datagram told that its session is not there.
func (k *keys) stray(h wire.Header, from netip.AddrPort) {
	select {
	case k.strays <- stray{h, from}:
	default:
	}
}

// SetSecrets replaces the secrets that this node shares with others; see session.Node.
func (e *Engine) SetSecrets(secrets []session.Secret) {
	e.keys.with(func(n *session.Node) { n.SetSecrets(secrets, e.now()) })
}

// SetTrusts replaces Config.Trusts: where frames need not be sealed from now on, as far as this node is concerned; nil is
// nowhere.
func (e *Engine) SetTrusts(trusts func(netip.Addr) bool) {
	trusts = session.OrNever(trusts)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.trust.Store(&trusts)
	for _, h := range e.peers.Load().byID {
		h.state.crossing.setLane(func(l lane) lane { return e.laneTo(l.session, l.addr) })
	}
	e.keys.with(func(n *session.Node) { n.SetTrusts(trusts, e.now()) })
}

// opened notes that a sealed datagram of a session was opened: the first shows that the peer has it, and one that is
// later than all others where the peer is, unless the session has been followed by another that the peer sends by.
func (e *Engine) opened(s *session.Session, from *hop, addr netip.AddrPort, newest bool, now time.Time) {
	first := s.Confirm()
	c := &from.state.crossing
	l := c.lane.Load()
	present := first || l.session == nil || l.session == s || !l.session.Confirmed()
	moved := (newest || first) && present && l.addr != addr
	if moved && !isDetour(addr) {
		from.state.sawAt(addr)
	}
	// Who goes by a relay, and who does not, the routes say.
	moved = moved && from.direct() && !isDetour(addr)
	if !first && !moved {
		return
	}
	if moved {
		c.setLane(func(l lane) lane { return e.laneTo(l.session, addr) })
	}
	e.keys.with(func(n *session.Node) {
		if moved {
			n.UpdateEndpoint(s, addr, now)
		}
		if first {
			n.ConfirmSession(s, now)
		}
	})
}

// makeSessions makes sessions until ctx ends. It does so apart from all others, as the mathematics of a handshake takes
// as long as hundreds of frames.
func (e *Engine) makeSessions(ctx context.Context) {
	k := e.keys
	by := newEncoder(e, e.conns[0])
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		k.rest(timer, e.now())
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
		case id := <-e.wants:
			if e.wantedBy(id) != nil {
				k.locked(func(n *session.Node) { n.RequestSession(id, e.now()) })
			}
		case <-k.wake:
		case <-timer.C:
			k.locked(func(n *session.Node) { n.Advance(e.now()) })
		}
		e.settle(&by)
	}
}

// rest sets timer to the Node's deadline.
func (k *keys) rest(timer *time.Timer, now time.Time) {
	k.locked(func(n *session.Node) {
		if at := n.Deadline(); at.IsZero() {
			timer.Reset(time.Hour)
		} else {
			timer.Reset(at.Sub(now))
		}
	})
}

// handshakeDrop returns the reason that an error of Node.Receive stands for; 0 for none.
func handshakeDrop(err error) Drop {
	for _, d := range []struct {
		err    error
		reason Drop
	}{
		{nil, 0}, {session.ErrTie, 0}, // the other handshake goes on
		{session.ErrSecret, DropSecret}, {session.ErrBusy, DropBusy}, {session.ErrUnknownPeer, DropUnknownPeer},
		{session.ErrUnexpected, DropUnexpected}, {session.ErrCipher, DropCipher}, {session.ErrReplayed, DropReplayed},
		{session.ErrForged, DropForged}, {wire.ErrShort, DropTruncated},
	} {
		if errors.Is(err, d.err) {
			return d.reason
		}
	}
	return DropMetadata
}

// settle sends what the Node has to say, and opens the lanes that it has made.
func (e *Engine) settle(by *encoder) {
	var messages []session.Message
	var changes []session.Change
	e.keys.locked(func(n *session.Node) { messages, changes = n.Drain() })
	batch := make([]underlay.Datagram, 0, len(messages))
	for _, m := range messages {
		if d, ok := e.towards(m.To, m.Datagram); ok {
			batch = append(batch, d)
		}
	}
	if len(batch) > 0 {
		_, _ = e.conns[0].WriteBatch(batch) // what does not leave is as good as lost
	}
	for _, change := range changes {
		h := e.peers.Load().byID[change.Peer]
		if h == nil {
			continue // it has left since
		}
		if s := change.Session; s != nil && s.Initiator() && !isDetour(change.Addr) {
			e.links.answered(h, change.Addr)
		}
		at := change.Addr
		if !h.direct() {
			at = h.at
		}
		e.open(h, change.Session, at, by, e.now())
		if s := change.Session; s != nil {
			e.log.Debug("session", "peer", change.Peer, "addr", change.Addr, "cipher", s.Cipher(), "plain", s.Plain())
			if h.state.crossing.agreed.Swap(s.Plain()) != s.Plain() && e.onAgreed != nil {
				e.onAgreed(change.Peer)
			}
		}
	}
}
