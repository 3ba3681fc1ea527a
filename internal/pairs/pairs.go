// Package pairs agrees with other nodes on ways of the kernel for two nodes alone (carrier.Pair): where an address translator is between
// them, or where their addresses on the underlay are of different families. Messages go through the session of both, which authenticates
// and seals them. The node that begins asks, the other one offers:
//
//	begins                          answers
//	  | -- request: own address -----> |   every second at first, until the kernel carries frames
//	  | <----------- offer: VNI, token |
//	  | == probes with the token ====> |   from the port that the translator chooses
package pairs

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/peer"
	"weft/router/carrier"
	"weft/router/carrier/vxlan"
)

// tick is the time between two looks at the members, and queue how many messages may wait for the next.
const (
	tick  = time.Second
	queue = 256
)

// Times between requests to one member: doubled after each.
const (
	firstPause   = time.Second
	longestPause = 30 * time.Second
)

// How long an offer is repeated that has led to nothing, doubled each time: after that there is another one, as its VNI may be in use.
const (
	firstLife   = time.Minute
	longestLife = time.Hour
)

// answerEvery is the shortest time between two answers to one member.
const answerEvery = 500 * time.Millisecond

// Role is what this node does in a pair.
type Role int

// Roles.
const (
	None    Role = iota // there is no pair
	Begins              // this node asks, and sends first
	Answers             // it offers, and sends where it hears the other one
	Beside              // both are behind address translators, perhaps behind the same: see Addr
)

// Member is another node with which there may be a pair.
type Member struct {
	Role Role // of this node
	// Addr is where this node sends to it; not valid: where the session leads.
	Addr netip.Addr
}

// Host is the node around Pairs. Its methods may be called from any goroutine, and do not call Pairs, apart from Changed.
type Host interface {
	// Members returns the members with which there may be a pair, and Member one of them; with the role None there is no pair.
	Members() map[peer.ID]Member
	Member(peer.ID) Member
	// MayBe reports whether an address can be that of a member, and is not known as that of this node or of another one.
	MayBe(peer.ID, netip.Addr) bool
	// Source returns the address from which this node sends to another one; not valid behind an address translator.
	Source(to netip.Addr) netip.Addr
	// Carries reports whether the kernel carries frames to a member.
	Carries(peer.ID) bool
	// Changed is called when Peer, or Addr of one that is Beside, returns something else than before.
	Changed()
}

// Sessions are the sessions with the other nodes; *router.Engine has them.
type Sessions interface {
	// SendControl sends a message by the session with a peer, and HasSession reports whether there is one.
	SendControl(id peer.ID, to uint8, message []byte) error
	HasSession(id peer.ID) bool
	// Endpoint returns where a peer is reached; not valid if it is not reached directly.
	Endpoint(id peer.ID) netip.AddrPort
}

// Config is what Pairs are made of. All fields are required.
type Config struct {
	Port    uint16 // of the carrier, on all nodes
	Channel uint8  // of the messages among those of Sessions.SendControl
	Host    Host
	Logger  *slog.Logger
}

// Pairs are the pairs of this node. Methods may be called from any goroutine.
type Pairs struct {
	// constant
	cfg      Config
	messages chan message // a sender that finds it full gives up: requests are repeated

	mu     sync.Mutex
	states map[peer.ID]*state // guarded by mu
}

// message is one of a member.
type message struct {
	from peer.ID
	text []byte
}

// state is what this node has agreed on with a member.
type state struct {
	role    Role
	addr    netip.Addr    // where the member was last reached, or from where it sends
	named   bool          // the member has named addr
	offer   Offer         // of the node that answers; the zero Offer: there is none
	offered time.Time     // when the offer of this node was made
	life    time.Duration // of that offer, while the kernel carries nothing
	heard   time.Time     // when the member last asked
	next    time.Time     // of the next request of this node
	pause   time.Duration // before the one after that
}

// New returns Pairs without any.
func New(cfg Config) *Pairs {
	return &Pairs{cfg: cfg, messages: make(chan message, queue), states: map[peer.ID]*state{}}
}

// Peer returns a member as a peer of the carrier; not ok if there is no pair yet.
func (p *Pairs) Peer(id peer.ID) (_ carrier.Peer, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := p.states[id]
	if s == nil || s.offer == (Offer{}) || !s.addr.IsValid() {
		return carrier.Peer{}, false
	}
	pair := carrier.Pair{VNI: s.offer.VNI, Token: s.offer.Token}
	if s.role == Begins {
		pair.Port = p.cfg.Port
	}
	return carrier.Peer{ID: id, Addr: s.addr, Pair: pair}, true
}

// Addr returns where a member was last reached; not valid before, or where this node has no role.
func (p *Pairs) Addr(id peer.ID) (addr netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.states[id]; s != nil {
		addr = s.addr
	}
	return addr
}

// Received queues a message of a member. It does not wait, and does not keep text.
func (p *Pairs) Received(from peer.ID, text []byte) {
	select {
	case p.messages <- message{from, slices.Clone(text)}:
	default:
	}
}

// Run exchanges messages with the members until ctx ends.
func (p *Pairs) Run(ctx context.Context, sessions Sessions) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for {
		var changed bool
		select {
		case <-ctx.Done():
			return
		case m := <-p.messages:
			changed = p.handle(sessions, m, time.Now())
		case <-ticker.C:
			changed = p.look(sessions, time.Now())
		}
		if changed {
			p.cfg.Host.Changed()
		}
	}
}

// look forgets what has ended, notes where members are reached, and sends the requests that are due. It reports whether Peer returns
// something else now.
func (p *Pairs) look(sessions Sessions, now time.Time) (changed bool) {
	members := p.cfg.Host.Members()
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, s := range p.states {
		// The kernel goes on carrying frames of a member with a stopped daemon.
		if m, alive := members[id]; m.Role != s.role && (alive || !p.cfg.Host.Carries(id)) {
			delete(p.states, id)
			changed = true
		}
	}
	for id, m := range members {
		s := p.state(id, m.Role)
		changed = s.follow(m, sessions.Endpoint(id)) || changed
		switch {
		case m.Role != Begins:
		case p.cfg.Host.Carries(id):
			s.next, s.pause = time.Time{}, 0
		case now.Before(s.next) || !sessions.HasSession(id) || s.offer == (Offer{}) && p.full():
		default:
			if sessions.SendControl(id, p.cfg.Channel, request(p.cfg.Host.Source(s.addr))) != nil {
				continue // the session has just ended
			}
			s.pause = min(max(2*s.pause, firstPause), longestPause)
			s.next = now.Add(s.pause)
		}
	}
	return changed
}

// state returns the state of a member. mu is held.
func (p *Pairs) state(id peer.ID, role Role) *state {
	s := p.states[id]
	if s == nil {
		s = &state{role: role}
		p.states[id] = s
	}
	return s
}

// follow notes where the member is reached, and reports whether that has changed. A member without a session stays where it was.
func (s *state) follow(m Member, at netip.AddrPort) (changed bool) {
	addr := at.Addr().Unmap()
	if m.Addr.IsValid() {
		addr = m.Addr
	}
	if s.named || !addr.IsValid() || addr == s.addr {
		return false
	}
	s.addr = addr
	return s.role == Beside || s.offer != (Offer{})
}

// handle handles a message of a member, and reports whether Peer returns something else now.
func (p *Pairs) handle(sessions Sessions, in message, now time.Time) (changed bool) {
	member := p.cfg.Host.Member(in.from)
	m, err := parse(in.text)
	switch {
	case err != nil:
		p.cfg.Logger.Debug("a message about a pair is not valid", "peer", in.from, "err", err)
		return false
	case m.isRequest && member.Role != Answers || !m.isRequest && member.Role != Begins:
		return false // the ends do not know yet that one of them is behind an address translator
	case m.from.IsValid() && !p.cfg.Host.MayBe(in.from, m.from):
		p.cfg.Logger.Debug("a member names an address that cannot be its own", "peer", in.from, "addr", m.from)
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if s := p.states[in.from]; s != nil && s.role != member.Role {
		delete(p.states, in.from)
	}
	s := p.state(in.from, member.Role)
	before, addr := s.offer, s.addr
	switch {
	case !m.isRequest:
		if !p.taken(m.offer.VNI, s) {
			s.offer = m.offer
		}
	case now.Sub(s.heard) < answerEvery, s.offer == (Offer{}) && p.full():
		return false
	default:
		s.heard = now
		if s.named = m.from.IsValid(); s.named {
			s.addr = m.from
		}
		p.renew(in.from, s, now)
		_ = sessions.SendControl(in.from, p.cfg.Channel, s.offer.message()) // is asked for again
	}
	s.follow(member, sessions.Endpoint(in.from))
	return s.offer != before || s.addr != addr
}

// renew makes an offer where there is none, or where one has led to nothing for its life. mu is held.
func (p *Pairs) renew(id peer.ID, s *state, now time.Time) {
	switch {
	case s.offer == (Offer{}):
		s.life = firstLife
	case now.Sub(s.offered) > s.life && !p.cfg.Host.Carries(id):
		s.life = min(2*s.life, longestLife)
	default:
		return
	}
	s.offer, s.offered = p.newOffer(), now
}

// full reports whether this node has as many pairs as the carrier has devices. mu is held.
func (p *Pairs) full() bool {
	n := 0
	for _, s := range p.states {
		if s.offer != (Offer{}) {
			n++
		}
	}
	return n >= vxlan.MaxPairs
}

// taken reports whether another pair has a VNI. mu is held.
func (p *Pairs) taken(vni uint32, but *state) bool {
	for _, s := range p.states {
		if s != but && s.offer.VNI == vni {
			return true
		}
	}
	return false
}

// newOffer returns an offer with a VNI that no other pair of this node has. mu is held.
func (p *Pairs) newOffer() Offer {
	o := Offer{}
	_, _ = rand.Read(o.Token[:]) // never fails
	for o.VNI = vxlan.RandomVNI(); p.taken(o.VNI, nil); {
		o.VNI = vxlan.RandomVNI()
	}
	return o
}
