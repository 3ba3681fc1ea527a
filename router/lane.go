package router

import (
	"net/netip"
	"sync"
	"sync/atomic"

	"weft/internal/peer"
	"weft/router/session"
	"weft/router/wire"
)

// lane is how frames go to a peer at present: what seals them, and where they are sent. It is never changed, so that
// nothing is ever sealed for one address, or left unsealed for one, and sent to another.
type lane struct {
	session *session.Session // nil: there is none, and frames wait
	addr    netip.AddrPort
	plain   bool // frames need not be sealed
	detour  bool // addr stands for the way over relays
}

// overhead returns the bytes that a datagram has beside the frame.
func (l *lane) overhead() int {
	if l.plain {
		return wire.Headroom
	}
	return wire.Headroom + wire.TagLen
}

// crossing is what there is between this node and a peer to carry frames: the present lane, and those that wait for one.
type crossing struct {
	// Atomic.
	lane   atomic.Pointer[lane] // never nil
	wanted atomic.Bool          // a session was asked for, and the engine has not looked yet
	agreed atomic.Bool          // the last session was one whose ends need no seal

	// Guarded by mu, which is also held while lane changes.
	mu      sync.Mutex
	waiting []waiting
	gone    bool // the peer has left: nothing may wait any more
}

// setLane replaces the lane by what f makes of it.
func (c *crossing) setLane(f func(lane) lane) {
	c.mu.Lock()
	defer c.mu.Unlock()
	next := f(*c.lane.Load())
	c.lane.Store(&next)
}

// laneTo returns the lane by s to addr.
func (e *Engine) laneTo(s *session.Session, addr netip.AddrPort) lane {
	return lane{session: s, addr: addr, plain: s != nil && s.Plain() && e.trusts(addr.Addr()), detour: isDetour(addr)}
}

// trusts reports whether frames need not be sealed on the way to and from an address, as far as this node is concerned.
func (e *Engine) trusts(addr netip.Addr) bool { return (*e.trust.Load())(addr) }

// Agreed reports whether this node and a peer have agreed, in the last handshake that they had, that frames need not be
// sealed between them. It holds on when the session is no longer needed.
func (e *Engine) PlainAgreed(id peer.ID) bool {
	h := e.peers.Load().byID[id]
	return h != nil && h.state.crossing.agreed.Load()
}
