package router

import (
	"math/rand/v2"
	"net/netip"
	"time"

	"weft/router/roaming"
	"weft/router/session"
	"weft/router/wire"
)

// A peer moves when it has answered at another address: a probe, or a handshake. Until then frames go where they went.
// roaming.Validator decides which address is probed, and when. See docs/adr/0041-proven-endpoints.md.

// proposeEach is the shortest time between two datagrams of one peer that make the engine look for the peer elsewhere.
const proposeEach = 50 * time.Millisecond

// maxEndpointProbes is how many peers may wait for the probe of an address. Others wait for the next round of probes.
const maxEndpointProbes = 64

// mayPropose reports whether a datagram that arrived at a time in nanoseconds of Unix time may make the engine look for the
// peer at its source, and if so counts it.
func (p *remotePeer) mayPropose(at int64) bool {
	if since := at - p.proposed.Load(); since >= 0 && since < int64(proposeEach) {
		return false
	}
	p.proposed.Store(at)
	return true
}

// proposeEndpoint makes addr a candidate for the endpoint of a peer, and has it probed soon.
func (e *Engine) proposeEndpoint(v *peerView, why roaming.Reason, addr netip.AddrPort) {
	v.mu.Lock()
	v.endpoints.Propose(why, addr, e.now())
	v.mu.Unlock()
	select {
	case e.endpointProbes <- v.ID:
	default:
	}
}

// probeEndpoints sends the probes that are due of the candidates of a peer, if there is a session for them.
func (e *Engine) probeEndpoints(v *peerView, p *probeSender) {
	s := v.egress.Load().session
	if s == nil || !v.direct() {
		return
	}
	for {
		v.mu.Lock()
		probe, ok := v.endpoints.Next(e.now(), rand.Uint32)
		v.mu.Unlock()
		if !ok {
			return
		}
		const size = wire.HeaderLen + wire.ProbeLen + wire.TagLen
		_ = p.send(e, probeDatagram{ // a probe that is not sent is not answered
			kind: wire.TypeProbe, session: s, addr: probe.Addr, probe: wire.Probe{Token: probe.Token, Size: size}, size: size,
		})
	}
}

// proveEndpoint has the handshake goroutine move a peer to addr, where it has answered the present session of in. If the
// queue is full the peer stays where it is, and is probed again.
func (in *inbound) proveEndpoint(addr netip.AddrPort) {
	select {
	case in.engine.handshakes.updates <- sessionUpdate{session: in.session, addr: addr, proven: true}:
	default:
	}
}

// moveEndpoint makes addr, where a peer has answered, its endpoint. If the peer is reached over a relay at present, addr is
// only remembered. Only the handshake goroutine calls it.
func (e *Engine) moveEndpoint(v *peerView, addr netip.AddrPort) {
	v.observe(addr)
	v.proven.Store(&addr)
	now, announced, direct := e.now(), false, false
	v.updateEgress(func(out egress) egress {
		announced = v.endpoints.Reached(addr, out.addr != addr, now)
		if latest := e.peers.Load().byID[v.ID]; latest == nil || !latest.direct() {
			return out
		}
		direct = true
		return e.egressTo(out.session, addr)
	})
	if !direct {
		return
	}
	if announced {
		e.resetPath(v)
	}
	e.handshakes.locked(func(n *session.Node) { n.UpdateEndpoint(v.ID, addr, now) })
}

// looksFor reports whether a peer that is reached directly at addr is worth looking for at the address that it announces.
func (v *peerView) looksFor(addr netip.AddrPort) bool {
	return v.direct() && !v.DialOut && v.Addr.IsValid() && v.Addr != addr
}

// provenAt is Peer.Addr for the handshakes with a peer: a peer that only dials out is not at the address that it announces.
func (v *peerView) provenAt() (addr, proven netip.AddrPort) {
	addr = v.Addr
	if at := v.proven.Load(); at != nil {
		proven = *at
		if v.DialOut {
			addr = proven
		}
	}
	return addr, proven
}
