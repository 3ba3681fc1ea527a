package router

import (
	"context"
	"errors"
	"math/rand/v2"
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
	// pathBase is the datagram in bytes of UDP payload that every path takes: of an IPv6 underlay's smallest MTU of 1,280
	// (RFC 8200, section 5), 48 bytes of headers and room for those of tunnels below it.
	pathBase = 1200
)

// path is what is known of the underlay between this node and a peer.
type path struct {
	// atomic
	frame atomic.Int64 // length in bytes of the longest frame that fits a datagram

	mu     sync.Mutex
	prober *pmtu.Prober // nil until the engine first looks
	sent   uint64       // frames, at the last look
	buf    []byte       // of the last probe
}

// maxFrame returns the length in bytes of the longest frame that reaches h.
func (h *hop) maxFrame() int { return int(h.state.path.frame.Load()) }

// forgetPath has h begin again: it is taken to be as good as the host's own link until it has shown otherwise, as nearly
// all are.
func (e *Engine) forgetPath(h *hop) {
	p := &h.state.path
	p.mu.Lock()
	defer p.mu.Unlock()
	p.prober = nil
	p.frame.Store(int64(e.maxDatagram() - wire.Headroom))
}

// maxDatagram returns the UDP payload in bytes of the longest frame that pods send: no path needs to take more.
func (e *Engine) maxDatagram() int { return int(e.longest.Load()) - vlanTag + wire.Headroom }

// probePaths probes the paths to the peers that there is traffic with, until ctx ends.
func (e *Engine) probePaths(ctx context.Context) {
	tick := time.NewTicker(pathTick)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := e.now()
		for _, h := range e.peers.Load().byID {
			if h.direct() {
				e.probePath(h, now)
			}
		}
	}
}

// probePath sends the probes that are due to h.
func (e *Engine) probePath(h *hop, now time.Time) {
	p := &h.state.path
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prober == nil {
		p.prober = pmtu.New(pmtu.Config{
			Base: pathBase, Max: e.maxDatagram(), Overhead: wire.OuterLen(h.Addr.Addr().Is6()), Seed: rand.Uint64(),
		})
	}
	p.prober.SetMax(e.maxDatagram(), now)
	if sent := h.state.transmit.frames.Load(); sent != p.sent {
		p.sent = sent
		p.prober.Traffic()
	}
	for {
		size, token, ok := p.prober.Next(now)
		if !ok {
			break
		}
		e.sendProbe(h, size, token, now)
	}
	p.update()
}

// sendProbe sends h a probe of size bytes. It is called with h's path locked.
func (e *Engine) sendProbe(h *hop, size int, token uint32, now time.Time) {
	p := &h.state.path
	if len(p.buf) < size {
		p.buf = make([]byte, size)
	}
	buf := p.buf[:size]
	wire.Header{Type: wire.TypeProbe, Counter: e.counter.Add(1)}.Put(buf)
	wire.Probe{Token: token, Size: uint16(size)}.Put(buf[wire.HeaderLen:])
	batch := [1]underlay.Datagram{{Addr: h.Addr, Buf: buf}}
	_, _ = e.conns[0].WriteBatch(batch[:]) // what is wrong is in Err, or nobody waits for the probe any more
	if errors.Is(batch[0].Err, syscall.EMSGSIZE) {
		p.prober.TooBig(size, 0, now)
	}
}

// update makes what the prober knows the limit of frames. It is called with the path locked.
func (p *path) update() {
	p.frame.Store(int64(p.prober.Size() - wire.Headroom))
}

// tooBig notes that a datagram of size bytes was said to be too long, where most is what would do, or 0. Nobody has
// authenticated that: the prober finds out.
func (p *path) tooBig(size, most int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prober != nil {
		p.prober.TooBig(size, most, now)
		p.update()
	}
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

// probe answers a probe of a peer's.
func (in *inbound) probe(body []byte, from *hop, size int) Drop {
	p, err := wire.ParseProbe(body, size)
	if err != nil {
		return wireDrop(err)
	}
	wire.Header{Type: wire.TypeProbeReply, Counter: in.engine.counter.Add(1)}.Put(in.answer[:])
	p.Put(in.answer[wire.HeaderLen:])
	batch := in.answers[:]
	batch[0] = underlay.Datagram{Addr: from.Addr, Buf: in.answer[:]}
	_, _ = in.conn.WriteBatch(batch) // lost answers are lost probes: the peer asks again
	return 0
}

// probeReply takes a peer's answer to the prober of its path.
func (in *inbound) probeReply(body []byte, from *hop, now time.Time) Drop {
	reply, err := wire.ParseProbeReply(body)
	if err != nil {
		return wireDrop(err)
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
func (e *Engine) Report(r underlay.Report) {
	if h := e.peers.Load().byAddr[r.Addr]; h != nil && !h.self && r.MTU > 0 {
		h.state.path.tooBig(0, r.MTU-wire.OuterLen(r.Addr.Addr().Is6()), e.now())
	}
}
