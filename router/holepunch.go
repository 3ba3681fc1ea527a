package router

import (
	"encoding/binary"
	"net/netip"
	"sync"

	"weft/internal/peer"
	"weft/router/drop"
	"weft/router/endpoint"
	"weft/router/liveness"
	"weft/router/wire"
)

// Two peers that can only dial out are connected by UDP hole punching (RFC 5128, section 3.3): a relay between them,
// which sees the public endpoint of each, sends it to the other one, and both probe it at the same time.

// holePunches decides when this node, as a relay, starts a hole punch.
type holePunches struct {
	mu          sync.Mutex
	coordinator liveness.Coordinator // guarded by mu
}

// coordinateHolePunch starts a hole punch between two peers for which this node has just relayed a datagram, if both
// can only dial out.
func (e *Engine) coordinateHolePunch(a, b *peerView) {
	if !a.DialOut || !b.DialOut || !a.direct() || !b.direct() {
		return
	}
	e.holePunches.mu.Lock()
	start := e.holePunches.coordinator.Start(a.ID, b.ID, e.now())
	e.holePunches.mu.Unlock()
	if !start {
		return
	}
	e.sendHolePunch(a, b)
	e.sendHolePunch(b, a)
}

// sendHolePunch sends the endpoint of one peer to another.
func (e *Engine) sendHolePunch(to, about *peerView) {
	if seen := about.egress.Load(); seen.addr.IsValid() && !seen.relayed {
		_ = e.sendControl(to.egress.Load(), wire.Control{Message: holePunchMessage(about.ID, seen.addr)})
	}
}

// startHolePunch probes the peer id at addr, where from says that it is seen. Only a relay between two nodes that can only dial
// out sees that, so nothing else is accepted from a member; and it proves nothing: frames follow an answer from there.
func (e *Engine) startHolePunch(from *peerView, id peer.ID, addr netip.AddrPort) drop.Reason {
	peers := e.peers.Load()
	v := peers.byID[id]
	switch {
	case v == nil || !v.DialOut || !e.dialOut.Load() || !from.relays(v):
		return drop.Unexpected
	case !endpoint.Public(addr) || addr.Addr() == *e.ownAddr.Load() || peers.byAddr[addr] != nil && peers.byAddr[addr] != v:
		return drop.Metadata
	}
	v.mu.Lock()
	started := v.link.StartPunch(addr, e.now())
	v.mu.Unlock()
	if !started {
		return drop.Busy
	}
	e.wakeLiveness()
	return 0
}

// SetReachability sets whether this node can only dial out, and the address by which its peers know it; the zero Addr
// if that is not known. A node that others reach takes part in no hole punch; New returns such a one.
func (e *Engine) SetReachability(dialOut bool, own netip.Addr) {
	e.ownAddr.Store(&own)
	e.dialOut.Store(dialOut)
}

// holePunchMessage returns the control message for a peer that is seen at addr.
func holePunchMessage(id peer.ID, addr netip.AddrPort) []byte {
	m := append([]byte{controlHolePunch}, id[:]...)
	m = binary.BigEndian.AppendUint16(m, addr.Port())
	ip := addr.Addr().As16()
	return append(m, ip[:]...)
}
