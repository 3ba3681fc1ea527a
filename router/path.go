package router

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"syscall"
	"time"

	"weft/internal/ether"
	"weft/router/drop"
	"weft/router/pmtu"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
)

// Times and sizes of path probing.
const (
	// pathTick is the time between two rounds, in which the engine checks the peers for traffic and sends due probes.
	pathTick = 200 * time.Millisecond
	// pathIdle is the same while there is no session at all.
	pathIdle = time.Second
	// pathBase is a datagram in bytes of UDP payload that every path takes: the smallest MTU of an IPv6 underlay, 1,280
	// (RFC 8200, section 5), less 48 bytes of headers, and less room for those of tunnels below it.
	pathBase = 1200
	// maxProbeReplies is how many replies to probes may wait to be sent. A probe that comes on top counts as lost.
	maxProbeReplies = 64
	// replyRate is how many probes of one peer are answered in a second, and at once. A peer sends some tens at most. The
	// answers go to the source of the probes, which the peer chooses.
	replyRate = 100
)

// probeReply is the reply to a peer's probe.
type probeReply struct {
	session *session.Session
	addr    netip.AddrPort
	probe   wire.Probe
}

// maxFrame returns the length in bytes of the longest frame that reaches the peer by out.
func (v *peerView) maxFrame(out *egress) int { return int(v.datagram.Load()) - out.overhead() }

// resetPath discards the measurements of the path to a peer. The path is assumed to take as much as the host's own link
// until probes show otherwise; nearly all are.
func (e *Engine) resetPath(v *peerView) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.prober = nil
	v.datagram.Store(int64(e.maxDatagramTo(v)))
}

// maxDatagramTo is maxDatagram for one peer. Over relays there is less room, as the links before and after them may
// take no more than that.
func (e *Engine) maxDatagramTo(v *peerView) int {
	if !v.Via.IsZero() {
		return e.maxDatagram() - wire.RelayOverhead
	}
	return e.maxDatagram()
}

// baseDatagram is pathBase for one peer. Over relays the headers around its datagrams have to pass as well.
func (v *peerView) baseDatagram() int {
	if !v.Via.IsZero() {
		return pathBase - wire.RelayOverhead
	}
	return pathBase
}

// maxDatagram returns the UDP payload in bytes of the longest frame that pods send: no path needs to take more.
func (e *Engine) maxDatagram() int {
	longest := int(e.longest.Load()) - vlanTag
	if mtu := int(e.mtu.Load()); mtu > 0 {
		longest = min(longest, mtu+ether.HeaderLen)
	}
	return longest + wire.Headroom + e.tailroom
}

// setMaxDatagram sets the longest datagram on the path to the peer, at once.
func (p *remotePeer) setMaxDatagram(size int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prober == nil {
		p.datagram.Store(int64(size))
		return
	}
	p.prober.SetMax(size, now)
	p.updateDatagram()
}

// runProbes probes the paths to the peers with traffic, and replies to their probes, until ctx ends. It has a goroutine
// of its own, as a socket with a full buffer makes its senders wait.
func (e *Engine) runProbes(ctx context.Context) {
	tick := time.NewTicker(pathTick)
	defer tick.Stop()
	var p probeSender
	for {
		select {
		case <-ctx.Done():
			return
		case r := <-e.probeReplies:
			_ = p.send(e, probeDatagram{
				kind: wire.TypeProbeReply, session: r.session, addr: r.addr, probe: r.probe,
				size: wire.HeaderLen + wire.ProbeLen + wire.TagLen,
			})
		case id := <-e.endpointProbes:
			if v := e.peers.Load().byID[id]; v != nil {
				e.probeEndpoints(v, &p)
			}
		case id := <-e.portProbes:
			if v := e.peers.Load().byID[id]; v != nil {
				e.probePorts(v, &p)
			}
		case <-tick.C:
			e.expireAllStaged(e.now())
			next := pathIdle
			for _, v := range e.peers.Load().sorted {
				e.probePorts(v, &p)
				if v.reachable() && v.egress.Load().session != nil {
					e.probeEndpoints(v, &p)
					e.probePath(v, &p)
					next = pathTick
				}
			}
			tick.Reset(next)
		}
	}
}

// probePath sends the probes of the path to a peer that are due, if there is a session for them.
func (e *Engine) probePath(v *peerView, p *probeSender) {
	out := v.egress.Load()
	if out.session == nil {
		return
	}
	for first := true; ; first = false {
		size, token, ok := e.nextProbe(v, first)
		if !ok {
			return
		}
		err := p.send(e, probeDatagram{
			kind: wire.TypeProbe, session: out.session, addr: out.addr,
			probe: wire.Probe{Token: token, Size: uint16(size)}, size: size,
		})
		if errors.Is(err, syscall.EMSGSIZE) {
			v.datagramTooBig(size, 0, e.now())
		}
	}
}

// nextProbe returns the next probe that the prober of a path wants to send. first says that it is the first of a round:
// then the prober learns about traffic and the MTU since the last one.
func (e *Engine) nextProbe(v *peerView, first bool) (size int, token uint32, ok bool) {
	now := e.now()
	v.mu.Lock()
	defer v.mu.Unlock()
	defer v.updateDatagram()
	if v.prober == nil {
		v.prober = pmtu.New(pmtu.Config{
			Base: v.baseDatagram(), Max: e.maxDatagramTo(v), Overhead: wire.OuterLen(v.Addr.Addr().Is6()), Seed: rand.Uint64(),
		})
	}
	if first {
		v.prober.SetMax(e.maxDatagramTo(v), now)
		if sent := v.transmit.Frames.Load(); sent != v.probedFrames {
			v.probedFrames = sent
			v.prober.Traffic()
		}
	}
	return v.prober.Next(now)
}

// probeSender sends probes. It is owned by one goroutine.
type probeSender struct{ buf []byte }

// probeDatagram describes a probe, or the reply to one, that is sent sealed by a session.
type probeDatagram struct {
	from    underlay.Conn // nil: the first socket
	kind    wire.Type
	session *session.Session
	addr    netip.AddrPort
	probe   wire.Probe
	size    int // of the datagram in bytes
}

// send sends a probe and returns the error of its datagram. A probe that cannot be sent now counts as lost.
func (p *probeSender) send(e *Engine, d probeDatagram) error {
	if len(p.buf) < d.size {
		p.buf = make([]byte, d.size)
	}
	counter, ok := d.session.Reserve(1)
	if !ok {
		return nil
	}
	body := p.buf[wire.HeaderLen : d.size-wire.TagLen]
	d.probe.Put(body)
	datagram, ok := e.datagramTo(d.addr, d.session.Seal(p.buf[:0], d.kind, counter, body))
	if !ok {
		return nil
	}
	if d.from == nil {
		d.from = e.conns[0]
	}
	batch := [1]underlay.Datagram{datagram}
	_, _ = d.from.WriteBatch(batch[:])
	return batch[0].Err
}

// updateDatagram makes the prober's result the limit of datagrams. mu is held.
func (p *remotePeer) updateDatagram() {
	p.datagram.Store(int64(p.prober.Size()))
}

// datagramTooBig notes a report that a datagram of size bytes was too long, with the length that would pass, or 0. The
// report is not authenticated: the prober verifies it.
func (p *remotePeer) datagramTooBig(size, passes int, now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prober == nil {
		return
	}
	if size > 0 {
		p.prober.Traffic() // there are frames to send, although none leaves and is counted
	}
	p.prober.TooBig(size, passes, now)
	p.updateDatagram()
}

// rtt returns the round-trip time that the last probes have measured, 0 if unknown.
func (p *remotePeer) rtt() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.prober == nil {
		return 0
	}
	return p.prober.RTT()
}

// handleProbe queues the reply to a peer's probe, unless this node could not take a frame that needs a datagram of this
// size.
func (in *inbound) handleProbe(body []byte, size int, addr netip.AddrPort) drop.Reason {
	p, err := wire.ParseProbe(body, size)
	if err != nil {
		return wireDrop(err)
	}
	in.engine.probes.Add(1)
	if size > in.engine.maxDatagram() {
		return 0 // the peer searches for a size that passes
	}
	in.from.mu.Lock()
	answer := in.from.replies.Allow(in.now)
	in.from.mu.Unlock()
	if !answer {
		return 0
	}
	select {
	case in.engine.probeReplies <- probeReply{in.session, addr, p}:
	default:
	}
	return 0
}

// handleProbeReply passes a peer's reply to the link or the path prober that has sent the probe.
func (in *inbound) handleProbeReply(body []byte, from *peerView, addr netip.AddrPort) drop.Reason {
	reply, err := wire.ParseProbeReply(body)
	if err != nil {
		return wireDrop(err)
	}
	in.engine.probes.Add(1)
	if in.handleLinkReply(from, reply.Token, addr) {
		return 0
	}
	from.mu.Lock()
	defer from.mu.Unlock()
	if at, ok := from.endpoints.Proves(reply.Token, in.now); ok {
		in.proveEndpoint(at)
		return 0
	}
	if from.prober != nil {
		from.prober.Acked(reply.Token, int(reply.Size), in.now)
		from.updateDatagram()
	}
	return 0
}

// HandleICMP handles a report of the network about a datagram: the path takes less than assumed, or the peer is not
// there. Reports are not authenticated: this one costs a lookup, and is verified by probes.
func (e *Engine) HandleICMP(r underlay.Report) {
	if v := e.peers.Load().byAddr[r.Addr]; v != nil && r.MTU > 0 {
		v.datagramTooBig(0, r.MTU-wire.OuterLen(r.Addr.Addr().Is6()), e.now())
	}
}
