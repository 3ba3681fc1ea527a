package router

import (
	"net/netip"
	"time"

	"weft/internal/peer"
	"weft/router/session"
	"weft/router/wire"
)

// Bounds of the frames that wait for a session: of one peer, and of all.
const (
	maxWaiting      = 256
	maxWaitingBytes = 4 << 20
	// waitingFor is how long a frame waits: by then its sender has sent it again, or given up.
	waitingFor = 2 * time.Second
)

// waiting is a frame for a peer with which there is no session yet.
type waiting struct {
	outgoing
	room  []byte // around the frame, for the header and the tag
	since time.Time
}

// wait keeps a copy of f until there is a session with to, and has one made. It returns false where there is one now.
// What is too much is dropped.
func (e *Engine) wait(to *hop, f *outgoing, now time.Time) bool {
	c := &to.state.crossing
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.lane.Load().session != nil {
		return false
	}
	if c.gone { // since the batch began
		e.drop(to, DropNoSession, f.frames)
		return true
	}
	e.expire(to, now)
	if len(c.waiting) < maxWaiting && e.reserve(len(f.Data)) {
		c.waiting = append(c.waiting, copyOf(f, now))
	} else {
		e.drop(to, DropNoSession, f.frames)
	}
	e.want(to)
	return true
}

// reserve takes room for a frame of size bytes out of what all may have that wait, if there is as much.
func (e *Engine) reserve(size int) bool {
	if e.waitingBytes.Add(int64(size)) <= maxWaitingBytes {
		return true
	}
	e.waitingBytes.Add(-int64(size))
	return false
}

func copyOf(f *outgoing, now time.Time) waiting {
	room := make([]byte, wire.Headroom+len(f.Data)+wire.TagLen)
	w := waiting{outgoing: *f, room: room, since: now}
	w.Data = room[wire.Headroom : wire.Headroom+len(f.Data)]
	copy(w.Data, f.Data)
	return w
}

// expire drops what has waited too long for a peer. The crossing's mu is held.
func (e *Engine) expire(to *hop, now time.Time) {
	c := &to.state.crossing
	for len(c.waiting) > 0 && now.Sub(c.waiting[0].since) >= waitingFor {
		e.giveUp(to, &c.waiting[0])
		c.waiting = c.waiting[1:]
	}
	if len(c.waiting) == 0 {
		c.waiting = nil
	}
}

// expireAll drops what has waited too long for any peer: it takes the room of others.
func (e *Engine) expireAll(now time.Time) {
	if e.waitingBytes.Load() == 0 {
		return
	}
	for _, h := range e.peers.Load().byID {
		h.state.crossing.mu.Lock()
		e.expire(h, now)
		h.state.crossing.mu.Unlock()
	}
}

// giveUp drops a frame that has waited.
func (e *Engine) giveUp(to *hop, w *waiting) {
	e.waitingBytes.Add(-int64(len(w.Data)))
	e.drop(to, DropNoSession, w.frames)
}

// want has a session made with a peer, once the engine's goroutine for that comes to it.
func (e *Engine) want(to *hop) {
	c := &to.state.crossing
	if c.wanted.Swap(true) {
		return
	}
	select {
	case e.wants <- to.ID:
	default:
		c.wanted.Store(false) // the next frame asks again
	}
}

// open makes a lane to a peer, by s to addr, after what has waited for one has been sent by it: what comes meanwhile
// waits behind. Without s there is none from now on.
func (e *Engine) open(to *hop, s *session.Session, addr netip.AddrPort, by *encoder, now time.Time) {
	c := &to.state.crossing
	c.mu.Lock()
	defer c.mu.Unlock()
	next := e.laneTo(s, addr) // with mu held: who takes trust back looks at all lanes after that
	if next.session != nil {
		for i := range c.waiting {
			w := &c.waiting[i]
			if now.Sub(w.since) >= waitingFor {
				e.giveUp(to, w)
				continue
			}
			e.waitingBytes.Add(-int64(len(w.Data)))
			if w.longest > to.maxFrame(&next) || w.isSuper() && !fitsWire(&w.layout) {
				e.drop(to, DropTooBig, w.frames) // its sender will be told when it sends it again
				continue
			}
			_ = by.carry(&w.outgoing, w.room, to, &next, false) // fails only where the socket is closed, which ends all
		}
		_ = by.flush()
		c.waiting = nil
	}
	c.lane.Store(&next)
}

// abandonWaiting drops what waits for peers that have left.
func (e *Engine) abandonWaiting(before, after *snapshot) {
	for id, h := range before.byID {
		if after.byID[id] != nil {
			continue
		}
		c := &h.state.crossing
		c.mu.Lock()
		for i := range c.waiting {
			e.giveUp(h, &c.waiting[i])
		}
		c.waiting, c.gone = nil, true
		c.mu.Unlock()
	}
}

// wantedBy returns the hop of a peer that wants a session, and lets it ask again.
func (e *Engine) wantedBy(id peer.ID) *hop {
	h := e.peers.Load().byID[id]
	if h != nil {
		h.state.crossing.wanted.Store(false)
	}
	return h
}
