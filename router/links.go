package router

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"time"

	"weft/internal/peer"
	"weft/router/session"
	"weft/router/wire"
)

// Links is what an engine knows of its own links that others cannot know.
type Links struct {
	// Broken are the peers that it does not reach itself, or that do not reach it, sorted.
	Broken []peer.ID
	// Open are the peers from which datagrams have come by the direct link in answer to this node's own, as long as
	// there is a session, sorted. Where a node can only dial out, these are the links by which it can be reached.
	Open []peer.ID
}

// Times of links.
const (
	linkTick = 500 * time.Millisecond
	// linkTries is how many initiations in a row without an answer make a link broken: some two seconds; linkTriesFirst
	// where nothing has come by it yet, as the peer may have only just started.
	linkTries      = 3
	linkTriesFirst = 5
	// linkSilence is how long nothing comes from a peer that frames are sent to until the link is probed: it answers at
	// least every two seconds. linkMisses probes in a row without an answer make it broken.
	linkSilence = 2500 * time.Millisecond
	linkMisses  = 3
	// linkProbeEach is the time between probes of a link by which nothing is sent; linkProofs in a row, each within
	// linkProofEach, show that it is there again.
	linkProbeEach = 2 * time.Second
	linkProofEach = time.Second
	linkProofs    = 2
	// meetEach is how often two peers that can only dial out are introduced, meetFor how long one tries.
	meetEach = 5 * time.Second
	meetFor  = 4 * time.Second
	// maxOpen and maxBroken bound what is told to everybody.
	maxOpen   = 32
	maxBroken = 80
)

// links watches the links to peers themselves: which of them are broken, which are there again, and which are to be kept.
type links struct {
	engine   *Engine
	onChange func(Links)
	wake     chan struct{} // holds a token while there is something to be done at once

	mu    sync.Mutex
	state map[peer.ID]*link        // guarded by mu: of those of which there is something to say
	keep  map[peer.ID]bool         // guarded by mu: with whom a session is kept whatever happens
	met   map[[2]peer.ID]time.Time // guarded by mu: who was introduced when
	told  Links                    // owned by watch
}

// link is what is known of one.
type link struct {
	broken bool
	open   bool
	proofs int // probes in a row that were answered
	misses int // probes in a row that were not, while the peer is silent

	token    uint32 // of the last probe; 0 for none under way
	probedAt time.Time

	meetAt    netip.AddrPort // where somebody has seen the peer
	meetUntil time.Time
}

func newLinks(e *Engine, onChange func(Links)) *links {
	return &links{
		engine: e, onChange: onChange, wake: make(chan struct{}, 1), state: map[peer.ID]*link{}, keep: map[peer.ID]bool{},
		met: map[[2]peer.ID]time.Time{},
	}
}

// Keep has sessions with the given peers made and kept though no frames pass, in place of those given before.
func (e *Engine) KeepSessions(peers []peer.ID) {
	e.links.mu.Lock()
	defer e.links.mu.Unlock()
	clear(e.links.keep)
	for _, id := range peers {
		e.links.keep[id] = true
	}
}

// watch looks at the links until ctx ends.
func (k *links) watch(ctx context.Context) {
	tick := time.NewTicker(linkTick)
	defer tick.Stop()
	var buf []byte
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-k.wake:
		}
		now := k.engine.now()
		buf = k.look(now, buf)
		if next := k.report(); k.onChange != nil && (!slices.Equal(next.Broken, k.told.Broken) || !slices.Equal(next.Open, k.told.Open)) {
			k.told = next
			k.onChange(next)
		}
	}
}

// look takes down what has happened since the last time and probes what is due.
func (k *links) look(now time.Time, buf []byte) []byte {
	e, peers := k.engine, k.engine.peers.Load()
	var unanswered, long []peer.ID
	silent := map[peer.ID]bool{}
	e.keys.locked(func(n *session.Node) {
		unanswered, long = n.Unanswered(linkTries), n.Unanswered(linkTriesFirst)
		for _, id := range n.Silent(linkSilence, now) {
			silent[id] = true
		}
	})
	var due []probeOf
	k.mu.Lock()
	for id := range k.state {
		if peers.byID[id] == nil {
			delete(k.state, id)
		}
	}
	for _, id := range unanswered {
		h := peers.byID[id]
		if h != nil && h.direct() && (h.state.seen.Load() != nil || slices.Contains(long, id)) {
			k.of(id).fail()
		}
	}
	for id, h := range peers.byID {
		due = k.visit(h, silent[id], now, due)
	}
	k.mu.Unlock()
	for _, p := range due {
		size := wire.HeaderLen + wire.ProbeLen + wire.TagLen
		buf = e.sendProbe(buf, wire.TypeProbe, &lane{session: p.by, addr: p.at}, wire.Probe{Token: p.token, Size: uint16(size)}, size, nil)
	}
	return buf
}

// probeOf is a probe to be sent.
type probeOf struct {
	by    *session.Session
	at    netip.AddrPort
	token uint32
}

// visit does what is due with one peer, silent or not, and adds the probes to be sent; mu is held.
func (k *links) visit(h *hop, silent bool, now time.Time, due []probeOf) []probeOf {
	by := h.state.crossing.lane.Load().session
	k.nurse(h, by)
	s := k.state[h.ID]
	unused := !h.Via.IsZero() || s != nil && s.broken // and may be there again
	if by == nil || !unused && !silent {
		if s != nil {
			s.misses = 0
		}
		return due
	}
	s = k.of(h.ID)
	pause := linkProbeEach
	if silent || s.proofs > 0 || now.Before(s.meetUntil) {
		pause = linkTick
	}
	if now.Sub(s.probedAt) < pause {
		return due
	}
	s.missed(now)
	if !unused && s.misses >= linkMisses {
		s.fail()
	}
	s.token, s.probedAt = max(rand.Uint32(), 1), now
	for _, at := range s.places(h, now) {
		due = append(due, probeOf{by, at, s.token})
	}
	return due
}

// nurse has a session made that is wanted whatever happens, or of which the link is broken: its initiations also try the
// link itself. mu is held.
func (k *links) nurse(h *hop, by *session.Session) {
	s := k.state[h.ID]
	switch {
	case by != nil && k.keep[h.ID]:
		by.Use()
	case by == nil && (k.keep[h.ID] || s != nil && s.broken):
		k.engine.want(h)
	}
	if by == nil && s != nil {
		s.open = false
	}
}

// fail notes that the link does not carry datagrams, or not both ways.
func (s *link) fail() { s.broken, s.open, s.proofs, s.misses = true, false, 0, 0 }

// missed notes what became of the last probe, before the next one is sent.
func (s *link) missed(now time.Time) {
	if s.token == 0 {
		return
	}
	s.misses++
	if now.Sub(s.probedAt) > linkProofEach {
		s.proofs = 0
	}
}

// places returns where a peer may be reached itself.
func (s *link) places(h *hop, now time.Time) (places []netip.AddrPort) {
	add := func(at netip.AddrPort) {
		if at.IsValid() && !slices.Contains(places, at) {
			places = append(places, at)
		}
	}
	add(h.Addr)
	if seen := h.state.seen.Load(); seen != nil {
		add(*seen)
	}
	if now.Before(s.meetUntil) {
		add(s.meetAt)
	}
	return places
}

// of returns the state of a peer; mu is held.
func (k *links) of(id peer.ID) *link {
	s := k.state[id]
	if s == nil {
		s = &link{}
		k.state[id] = s
	}
	return s
}

// probed takes the answer to a probe that came from addr, and reports whether it was to one of a link.
func (k *links) probed(from *hop, token uint32, addr netip.AddrPort) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	s := k.state[from.ID]
	if s == nil || s.token == 0 || s.token != token {
		return false
	}
	if isDetour(addr) {
		return true // its peer had it by the link, and its answer did not come by it
	}
	s.token, s.misses = 0, 0
	if s.proofs++; s.proofs >= linkProofs {
		k.proven(s, from, addr)
	}
	return true
}

// answered notes that a peer has answered an initiation that was sent to addr, its own.
func (k *links) answered(h *hop, addr netip.AddrPort) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.proven(k.of(h.ID), h, addr)
}

// proven notes that a link carries datagrams both ways; mu is held.
func (k *links) proven(s *link, h *hop, addr netip.AddrPort) {
	s.broken, s.open, s.proofs, s.misses = false, true, 0, 0
	h.state.sawAt(addr)
	k.poke()
}

func (k *links) poke() {
	select {
	case k.wake <- struct{}{}:
	default:
	}
}

// report returns what others should know.
func (k *links) report() Links {
	k.mu.Lock()
	defer k.mu.Unlock()
	var r Links
	for id, s := range k.state {
		if s.broken {
			r.Broken = append(r.Broken, id)
		}
		if s.open {
			r.Open = append(r.Open, id)
		}
	}
	slices.SortFunc(r.Broken, peer.ID.Compare)
	slices.SortFunc(r.Open, peer.ID.Compare)
	r.Broken, r.Open = r.Broken[:min(len(r.Broken), maxBroken)], r.Open[:min(len(r.Open), maxOpen)]
	return r
}

// introduce tells two peers between whom this node relays, and who both can only dial out, where it sees the other.
func (k *links) introduce(a, b *hop) {
	if !a.DialOut || !b.DialOut || !a.direct() || !b.direct() {
		return
	}
	now := k.engine.now()
	pair := [2]peer.ID{a.ID, b.ID}
	if a.ID.Compare(b.ID) > 0 {
		pair = [2]peer.ID{b.ID, a.ID}
	}
	k.mu.Lock()
	recently := now.Sub(k.met[pair]) < meetEach
	if !recently {
		if len(k.met) > 1024 {
			clear(k.met)
		}
		k.met[pair] = now
	}
	k.mu.Unlock()
	if recently {
		return
	}
	for _, of := range [2][2]*hop{{a, b}, {b, a}} {
		to, about := of[0].state.crossing.lane.Load(), of[1].state.crossing.lane.Load()
		if about.addr.IsValid() && !about.detour {
			_ = k.engine.sendControl(to, wire.Control{Message: meetMessage(of[1].ID, about.addr)})
		}
	}
}

// meet has a peer sought where somebody has seen it, by both at once.
func (k *links) meet(id peer.ID, at netip.AddrPort) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, now := k.of(id), k.engine.now()
	s.meetAt, s.meetUntil, s.probedAt = at, now.Add(meetFor), time.Time{}
	k.poke()
}
