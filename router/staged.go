package router

import (
	"net/netip"
	"time"

	"weft/router/drop"
	"weft/router/roaming"
	"weft/router/segmenter"
	"weft/router/session"
	"weft/router/wire"
)

// Bounds of staged frames: those of one peer, and the bytes of all peers.
const (
	maxStaged      = 256
	maxStagedBytes = 4 << 20
	// stagedFor is how long a frame stays staged. By then its sender has sent it again, or has given up.
	stagedFor = 2 * time.Second
	// maxDrainRounds and maxDrainTime bound how often and how long an installed session sends the staged frames while senders
	// add more. In the round after them the senders wait: the handshake goroutine, which drains, serves all peers.
	maxDrainRounds = 8
	maxDrainTime   = 50 * time.Millisecond
)

// stagedFrame is a copy of a frame for a peer without a session.
type stagedFrame struct {
	outgoing
	room  []byte // around the frame, for the header and the tag
	since time.Time
}

// stage keeps a copy of f until there is a session with to, and requests one. It returns false if there is a session now.
// Frames beyond the bounds are dropped. It may wait while the last staged frames are being sent.
func (e *Engine) stage(to *peerView, f *outgoing, now time.Time) bool {
	p := to.remotePeer
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.draining {
		p.installed.Wait()
	}
	if p.egress.Load().session != nil {
		return false
	}
	if p.left { // since the batch began
		e.drop(to, drop.NoSession, f.frames)
		return true
	}
	e.expireStaged(to, now)
	if len(p.staged) < maxStaged && e.reserveStaged(len(f.Data)) {
		p.staged = append(p.staged, copyOf(f, now))
	} else {
		e.drop(to, drop.NoSession, f.frames)
	}
	e.requestSession(to)
	return true
}

// reserveStaged reserves size bytes of maxStagedBytes. It returns false if they are not available.
func (e *Engine) reserveStaged(size int) bool {
	if e.stagedBytes.Add(int64(size)) <= maxStagedBytes {
		return true
	}
	e.stagedBytes.Add(-int64(size))
	return false
}

func copyOf(f *outgoing, now time.Time) stagedFrame {
	room := make([]byte, wire.Headroom+len(f.Data)+wire.TagLen)
	w := stagedFrame{outgoing: *f, room: room, since: now}
	w.Data = room[wire.Headroom : wire.Headroom+len(f.Data)]
	copy(w.Data, f.Data)
	return w
}

// expireStaged drops the frames that were staged for a peer for too long. The peer's mu is held.
func (e *Engine) expireStaged(to *peerView, now time.Time) {
	p := to.remotePeer
	for len(p.staged) > 0 && now.Sub(p.staged[0].since) >= stagedFor {
		e.dropStaged(to, &p.staged[0])
		p.staged = p.staged[1:]
	}
	if len(p.staged) == 0 {
		p.staged = nil
	}
}

// expireAllStaged drops the frames that were staged for too long for any peer, since they use up maxStagedBytes.
func (e *Engine) expireAllStaged(now time.Time) {
	if e.stagedBytes.Load() == 0 {
		return
	}
	for _, v := range e.peers.Load().sorted {
		v.mu.Lock()
		e.expireStaged(v, now)
		v.mu.Unlock()
	}
}

// dropStaged counts a staged frame as dropped and releases its bytes.
func (e *Engine) dropStaged(to *peerView, w *stagedFrame) {
	e.stagedBytes.Add(-int64(len(w.Data)))
	e.drop(to, drop.NoSession, w.frames)
}

// abandonStaged drops the staged frames of a peer that was removed.
func (e *Engine) abandonStaged(v *peerView) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for i := range v.staged {
		e.dropStaged(v, &v.staged[i])
	}
	v.staged, v.left = nil, true
}

// requestSession asks the handshake goroutine for a session with a peer. It does not wait; if too many requests wait
// already, the next frame asks again.
func (e *Engine) requestSession(to *peerView) {
	if to.requested.Swap(true) {
		return
	}
	select {
	case e.sessionRequests <- to.ID:
	default:
		to.requested.Store(false)
	}
}

// installSession makes s, to addr, the egress of a peer. It first sends the staged frames by it, with enc. Until all are
// sent the egress has no session, so frames that arrive meanwhile are staged behind them and none overtakes another.
//
// The frames are sent without a lock. A sender that is faster than the draining could keep it going without end: after
// maxDrainRounds such senders wait, in stage, for one more round.
//
// Only the handshake goroutine calls it.
func (e *Engine) installSession(to *peerView, s *session.Session, addr netip.AddrPort, enc *encoder, now time.Time) {
	p, announced := to.remotePeer, to.Addr
	for round, start := 0, now; ; round++ {
		p.mu.Lock()
		if v := e.peers.Load().byID[to.ID]; v != nil && v.remotePeer == p && !v.sameKind(to) { // SetPeers has moved the peer
			to, addr = v, v.home
		}
		next := e.egressTo(s, addr) // with mu held: SetTrusted updates the egress of every peer after it has changed the list
		staged := p.staged
		p.staged = nil
		if len(staged) == 0 {
			p.egress.Store(&next)
			p.draining = false
			p.installed.Broadcast()
			p.mu.Unlock()
			if v := e.peers.Load().byID[to.ID]; v != nil && v.Addr != announced && v.looksFor(addr) {
				e.proposeEndpoint(v, roaming.Announced, v.Addr)
			}
			return
		}
		now = e.now()
		p.draining = round >= maxDrainRounds || now.Sub(start) >= maxDrainTime
		p.mu.Unlock()
		e.sendStaged(to, staged, &next, enc, now)
	}
}

// sendStaged sends staged frames by out. Errors are ignored: they only occur when the socket is closed, which ends Run.
func (e *Engine) sendStaged(to *peerView, staged []stagedFrame, out *egress, enc *encoder, now time.Time) {
	enc.now = now
	for i := range staged {
		w := &staged[i]
		if now.Sub(w.since) >= stagedFor {
			e.dropStaged(to, w)
			continue
		}
		e.stagedBytes.Add(-int64(len(w.Data)))
		if w.longest > to.maxFrame(out) || w.isSuper() && !segmenter.FitsWire(&w.layout) {
			e.drop(to, drop.FrameExceedsPathMTU, w.frames) // its sender is informed when it sends it again
			continue
		}
		if out.plain && !e.trusts(out.addr.Addr()) { // SetTrusted has returned since out was made
			fresh := e.egressTo(out.session, out.addr)
			out = &fresh
		}
		_ = enc.carry(&w.outgoing, w.room, to, out, false)
	}
	_ = enc.flush()
}

// dropSession makes the egress of a peer one without a session, to addr. Frames are staged from now on.
func (e *Engine) dropSession(to *peerView, addr netip.AddrPort) {
	to.updateEgress(func(egress) egress { return e.egressTo(nil, addr) })
}
