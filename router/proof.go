package router

import (
	"math/rand/v2"
	"time"

	"weft/internal/peer"
	"weft/router/wire"
)

// ProvePeer makes a peer prove that userspace reaches it: it is sent a probe, or a handshake where there is no session. The answer
// changes LastHeard. It may be called from any goroutine, and does not wait.
func (e *Engine) ProvePeer(id peer.ID) {
	v := e.peers.Load().byID[id]
	if v == nil || !v.reachable() {
		return
	}
	v.noteDoubt(e.now().UnixNano())
	out := v.egress.Load()
	if out.session == nil {
		e.requestSession(v)
		return
	}
	const size = wire.HeaderLen + wire.ProbeLen + wire.TagLen
	var p probeSender
	_ = p.send(e, probeDatagram{ // a probe that is not sent is not answered
		kind: wire.TypeProbe, session: out.session, addr: out.addr, probe: wire.Probe{Token: rand.Uint32(), Size: size}, size: size,
	})
}

// LastHeard returns when the last datagram arrived that only the peer can have sent; the zero time if there was none. It may be
// called from any goroutine.
func (e *Engine) LastHeard(id peer.ID) time.Time {
	v := e.peers.Load().byID[id]
	if v == nil {
		return time.Time{}
	}
	if at := v.heard.Load(); at != 0 {
		return time.Unix(0, at)
	}
	return time.Time{}
}

// noteDoubt notes that the peer was to prove itself at a time in nanoseconds of Unix time.
func (p *remotePeer) noteDoubt(at int64) {
	if since := p.doubted.Load(); since == 0 || p.heard.Load() >= since {
		p.doubted.Store(at)
	}
}

// owesProof reports whether the peer has not proven itself at now although it was to for at least d.
func (p *remotePeer) owesProof(d time.Duration, now time.Time) bool {
	since := p.doubted.Load()
	return since != 0 && p.heard.Load() < since && now.UnixNano()-since >= int64(d)
}

// noteHeard notes that the peer was heard at a time in nanoseconds of Unix time. Most datagrams of a batch find it noted.
func (p *remotePeer) noteHeard(at int64) {
	if p.heard.Load() != at {
		p.heard.Store(at)
	}
}
