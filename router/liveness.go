package router

import (
	"context"
	"math/rand/v2"
	"net/netip"
	"time"

	"weft/internal/peer"
	"weft/router/endpoint"
	"weft/router/liveness"
	"weft/router/session"
	"weft/router/wire"
)

// Links are the direct links of this node, as far as only this node can judge them.
type Links struct {
	// Broken are the peers that this node does not reach directly, or that do not reach it: sorted, at most
	// liveness.MaxBroken.
	Broken []peer.ID
	// Open are the peers from which datagrams have arrived over the direct link in answer to this node's own, while
	// there is a session: sorted, at most liveness.MaxOpen. If this node can only dial out, it is reachable over these
	// links.
	Open []peer.ID
}

// KeepSessions replaces the set of peers with which sessions are made, and kept although no frames pass.
func (e *Engine) KeepSessions(peers []peer.ID) {
	set := make(map[peer.ID]bool, len(peers))
	for _, id := range peers {
		set[id] = true
	}
	e.keepalive.Store(&set)
}

// runLiveness judges the links to all peers, probes them and reports their changes, until ctx ends.
func (e *Engine) runLiveness(ctx context.Context) {
	tick := time.NewTicker(liveness.TickInterval)
	defer tick.Stop()
	var p probeSender
	var reported liveness.Summary
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		case <-e.linkWake:
		}
		e.tickLinks(&p)
		if next := e.summarizeLinks(); !next.Equal(reported) {
			reported = next
			if e.events != nil {
				e.events.LinksChanged(Links(next))
			}
		}
	}
}

// tickLinks moves the links of all peers on to the present time, and does what they ask for.
func (e *Engine) tickLinks(p *probeSender) {
	now, peers, keep := e.now(), e.peers.Load(), *e.keepalive.Load()
	unanswered, silent := map[peer.ID]int{}, map[peer.ID]bool{}
	e.handshakes.locked(func(n *session.Node) {
		for _, tries := range []int{liveness.Tries, liveness.TriesFirst} {
			for _, id := range n.Unanswered(tries) {
				unanswered[id] = tries
			}
		}
		for _, id := range n.Silent(liveness.Silence, now) {
			silent[id] = true
		}
	})
	for _, v := range peers.sorted {
		e.tickLink(v, liveness.Observation{
			Direct: v.direct(), Relayed: !v.Via.IsZero(), Keep: keep[v.ID], Unanswered: unanswered[v.ID],
			Silent:     silent[v.ID] || v.owesProof(liveness.Silence, now),
			Configured: v.Addr,
		}, now, p)
	}
}

// tickLink moves the link of one peer on to now, and does what it asks for. It completes the observation.
func (e *Engine) tickLink(v *peerView, o liveness.Observation, now time.Time, p *probeSender) {
	s := v.egress.Load().session
	o.Session = s != nil
	if observed := v.observed.Load(); observed != nil {
		o.Observed = *observed
	}
	if proven := v.proven.Load(); proven != nil {
		o.Proven = *proven
	}
	v.mu.Lock()
	actions := v.link.Tick(o, now, rand.Uint32)
	v.mu.Unlock()
	if actions.RequestSession {
		e.requestSession(v)
	}
	if actions.UseSession {
		s.Use()
	}
	for _, probe := range actions.Probes {
		const size = wire.HeaderLen + wire.ProbeLen + wire.TagLen
		_ = p.send(e, probeDatagram{
			kind: wire.TypeProbe, session: s, addr: probe.Addr, probe: wire.Probe{Token: probe.Token, Size: size}, size: size,
		})
	}
}

// summarizeLinks returns the links that other nodes need to know of.
func (e *Engine) summarizeLinks() liveness.Summary {
	var s liveness.Summary
	for _, v := range e.peers.Load().sorted {
		v.mu.Lock()
		state := v.link.State()
		v.mu.Unlock()
		s.Add(v.ID, state)
	}
	s.Finish()
	return s
}

// handleLinkReply handles the answer to a probe that came from addr, and reports whether it was a probe of a link.
func (in *inbound) handleLinkReply(from *peerView, token uint32, addr netip.AddrPort) bool {
	direct := !endpoint.IsRelayed(addr)
	from.mu.Lock()
	at, works := from.link.HandleReply(token, direct)
	from.mu.Unlock()
	if at.IsValid() && direct {
		in.proveEndpoint(at)
	}
	if works {
		in.engine.wakeLiveness()
	}
	return at.IsValid()
}

// linkProven notes that a peer has answered, from its own address addr, an initiation.
func (e *Engine) linkProven(v *peerView, addr netip.AddrPort) {
	v.mu.Lock()
	v.link.HandleResponse()
	v.mu.Unlock()
	v.noteHeard(e.now().UnixNano())
	e.moveEndpoint(v, addr)
	e.wakeLiveness()
}

func (e *Engine) wakeLiveness() {
	select {
	case e.linkWake <- struct{}{}:
	default:
	}
}
