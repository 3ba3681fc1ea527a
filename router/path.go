package router

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"weft/router/pmtu"
	"weft/router/underlay"
	"weft/router/wire"
)

// Times and sizes of the probing of paths.
const (
	// pathTick is how often the engine looks which peers had traffic, and whether their probers want to send.
	pathTick = 200 * time.Millisecond
	// pathIdle is the same while there is no session with anybody.
	pathIdle = time.Second
	// pathBase is the datagram in bytes of UDP payload that every path takes: of an IPv6 underlay's smallest MTU of 1,280
	// (RFC 8200, section 5), 48 bytes of headers and room for those of tunnels below it.
	pathBase = 1200
)

// path is what is known of the underlay between this node and a peer.
type path struct {
	// atomic
	datagram atomic.Int64 // length in bytes of the longest datagram that passes

	mu     sync.Mutex
	prober *pmtu.Prober // nil until the engine first looks
	sent   uint64       // frames, at the last look
}

// answer is what a peer's probe is answered with.
type answer struct {
	by    *lane
	probe wire.Probe
}

// maxAnswers is how many answers may wait to be sent; a probe that comes on top is as good as lost.
const maxAnswers = 64

// maxFrame returns the length in bytes of the longest frame that reaches h by l.
func (h *hop) maxFrame(l *lane) int { return int(h.state.path.datagram.Load()) - l.overhead() }

// forgetPath has h begin again: it is taken to be as good as the host's own link until it has shown otherwise, as nearly
// all are.
func (e *Engine) forgetPath(h *hop) {
	p := &h.state.path
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prober = nil
	p.datagram.Store(int64(e.maxDatagramTo(h)))
}

// maxDatagramTo is maxDatagram for one peer: over relays there is less room, as the links before and after them may take
// no more than that.
func (e *Engine) maxDatagramTo(h *hop) int {
	if !h.Via.IsZero() {
		return e.maxDatagram() - wire.RelayOverhead
	}
	return e.maxDatagram()
}

// baseDatagram is pathBase for one peer: over relays what is put around its datagrams has to pass as well.
func (h *hop) baseDatagram() int {
	if !h.Via.IsZero() {
		return pathBase - wire.RelayOverhead
	}
	return pathBase
}

// maxDatagram returns the UDP payload in bytes of the longest frame that pods send: no path needs to take more.
func (e *Engine) maxDatagram() int {
	return int(e.longest.Load()) - vlanTag + wire.Headroom + e.tailroom
}

// probePaths probes the paths to the peers that there is traffic with, and answers their probes, until ctx ends. It does
// so apart from all others, as a socket whose buffer is full makes its senders wait.
func (e *Engine) probePaths(ctx context.Context) {
	tick := time.NewTicker(pathTick)
	defer tick.Stop()
	var buf []byte
	for {
		select {
		case <-ctx.Done():
			return
		case a := <-e.answers:
			buf = e.sendProbe(buf, wire.TypeProbeReply, a.by, a.probe, wire.HeaderLen+wire.ProbeLen+wire.TagLen, nil)
		case <-tick.C:
			e.expireAll(e.now())
			next := pathIdle
			for _, h := range e.peers.Load().byID {
				if h.reached() && h.state.crossing.lane.Load().session != nil {
					buf, next = e.probePath(h, buf), pathTick
				}
			}
			tick.Reset(next)
		}
	}
}

// probePath sends the probes that are due to h, if there is a session by which they could go. It returns buf, which may
// have grown.
func (e *Engine) probePath(h *hop, buf []byte) []byte {
	p, l := &h.state.path, h.state.crossing.lane.Load()
	if l.session == nil {
		return buf
	}
	for first := true; ; first = false {
		size, token, ok := e.nextProbe(h, first)
		if !ok {
			return buf
		}
		buf = e.sendProbe(buf, wire.TypeProbe, l, wire.Probe{Token: token, Size: uint16(size)}, size, p)
	}
}

// nextProbe asks the prober of h for a probe; the first time in a round it tells it what has happened since the last.
func (e *Engine) nextProbe(h *hop, first bool) (size int, token uint32, ok bool) {
	p, now := &h.state.path, e.now()
	p.mu.Lock()
	defer p.mu.Unlock()
	defer p.update()
	if p.prober == nil {
		p.prober = pmtu.New(pmtu.Config{
			Base: h.baseDatagram(), Max: e.maxDatagramTo(h), Overhead: wire.OuterLen(h.Addr.Addr().Is6()), Seed: rand.Uint64(),
		})
	}
	if first {
		p.prober.SetMax(e.maxDatagramTo(h), now)
		if sent := h.state.transmit.frames.Load(); sent != p.sent {
			p.sent = sent
			p.prober.Traffic()
		}
	}
	return p.prober.Next(now)
}

// sendProbe sends a probe of size bytes, or the answer to one. It returns buf, which may have grown. of, where there is
// one, hears that the probe is too long for this host's own link.
func (e *Engine) sendProbe(buf []byte, kind wire.Type, by *lane, probe wire.Probe, size int, of *path) []byte {
	if len(buf) < size {
		buf = make([]byte, size)
	}
	counter, ok := by.session.Reserve(1)
	if !ok {
		return buf
	}
	body := buf[wire.HeaderLen : size-wire.TagLen]
	probe.Put(body)
	d, ok := e.towards(by.addr, by.session.Seal(buf[:0], kind, counter, body))
	if !ok {
		return buf
	}
	batch := [1]underlay.Datagram{d}
	_, _ = e.conns[0].WriteBatch(batch[:]) // what does not leave is as good as lost
	if of != nil && errors.Is(batch[0].Err, syscall.EMSGSIZE) {
		of.tooBig(size, 0, e.now())
	}
	return buf
}

// update makes what the prober knows the limit of datagrams. It is called with the path locked.
func (p *path) update() {
	p.datagram.Store(int64(p.prober.Size()))
}

// tooBig notes that a datagram of size bytes was said to be too long, where most is what would do, or 0. Nobody has
// authenticated that: the prober finds out.
func (p *path) tooBig(size, most int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prober == nil {
		return
	}
	if size > 0 {
		p.prober.Traffic() // there is somebody who wants to send, and nothing leaves that would show it
	}
	p.prober.TooBig(size, most, now)
	p.update()
}

// rtt returns the round trip as the last probes have measured it, or 0.
func (p *path) rtt() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prober == nil {
		return 0
	}
	return p.prober.RTT()
}

// probe has a probe of a peer's answered, unless a frame that needs a datagram of this size could not be taken here.
func (in *inbound) probe(body []byte, size int, addr netip.AddrPort) Drop {
	p, err := wire.ParseProbe(body, size)
	if err != nil {
		return wireDrop(err)
	}
	in.engine.probes.Add(1)
	if size > in.engine.maxDatagram() {
		return 0 // the peer finds out what is the most
	}
	select {
	case in.engine.answers <- answer{&lane{session: in.session, addr: addr}, p}:
	default:
	}
	return 0
}

// probeReply takes a peer's answer to the prober of its path.
func (in *inbound) probeReply(body []byte, from *hop, addr netip.AddrPort, now time.Time) Drop {
	reply, err := wire.ParseProbeReply(body)
	if err != nil {
		return wireDrop(err)
	}
	in.engine.probes.Add(1)
	if in.engine.links.probed(from, reply.Token, addr) {
		return 0
	}
	p := &from.state.path
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prober != nil {
		p.prober.Acked(reply.Token, int(reply.Size), now)
		p.update()
	}
	return 0
}

// Report takes what the network has said of a datagram: a path that is shorter than assumed, or a peer that is not
// there. It is a hint from nobody knows whom, and costs a lookup.
func (e *Engine) HandleICMP(r underlay.Report) {
	if h := e.peers.Load().byAddr[r.Addr]; h != nil && r.MTU > 0 {
		h.state.path.tooBig(0, r.MTU-wire.OuterLen(r.Addr.Addr().Is6()), e.now())
	}
}
