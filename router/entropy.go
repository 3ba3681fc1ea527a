package router

import (
	"math/rand/v2"
	"net/netip"

	"weft/internal/flowhash"
	"weft/internal/poll"
	"weft/router/drop"
	"weft/router/entropyport"
	"weft/router/underlay"
	"weft/router/wire"
)

// An entropy port is a further source port of this node. It receives only answers: all else comes to the data port. The flow of a frame
// selects the port, and entropyport.Path decides whether frames to a peer leave from it. See docs/adr/0048-a-source-port-a-flow.md.

// Sizes of the buffers for what arrives at entropy ports. Longer datagrams are no answers.
const (
	portDatagrams = 16
	portBuffer    = 256 // bytes
)

// batchFor returns the batch of a frame to a peer. A frame that goes to several peers leaves from the data port, and so do staged frames.
func (c *encoder) batchFor(f *outgoing, to *peerView, out *egress, shared bool) *socketBatch {
	e := c.engine
	if len(e.ports) == 0 {
		return &c.data
	}
	flow, i, may := flowhash.Of(f.Data), 0, false
	if !shared && !out.relayed && len(c.ports) > 0 {
		i = entropyport.Index(flow, len(c.ports))
		var due bool
		if may, due = to.ports[i].Carries(out.addr); due {
			e.requestPortProbes(to)
		}
	}
	if e.flows.Leave(flow, may, c.now) {
		return &c.ports[i]
	}
	return &c.data
}

// maxPortProbes is how many peers may wait for probes from the entropy ports.
const maxPortProbes = 64

// requestPortProbes asks for the probes that are due from the entropy ports to a peer, without waiting for the next tick: most of a flow
// then leaves from its port, which it cannot change to without a pause. If too many requests wait, the tick comes first.
func (e *Engine) requestPortProbes(to *peerView) {
	select {
	case e.portProbes <- to.ID:
	default:
	}
}

// probePorts sends the probes that are due from the entropy ports to a peer, and ends the proofs of those that are not answered. Only the
// path probing goroutine calls it.
func (e *Engine) probePorts(v *peerView, p *probeSender) {
	out, now, to := v.egress.Load(), e.now(), entropyport.Endpoint{}
	if out.session != nil && !out.relayed && v.direct() && !v.kernel.Load() {
		to = entropyport.Endpoint{Addr: out.addr, Session: out.session.Index()}
	}
	for i := range v.ports {
		v.mu.Lock()
		probe, ok := v.ports[i].Next(to, int(v.datagram.Load()), now, rand.Uint32)
		v.mu.Unlock()
		if ok {
			_ = p.send(e, probeDatagram{ // a probe that is not sent is not answered
				from: e.ports[i], kind: wire.TypePortProbe, session: out.session, addr: out.addr,
				probe: wire.Probe{Token: probe.Token, Size: uint16(probe.Size)}, size: probe.Size,
			})
		}
	}
}

// provenPorts returns the number of entropy ports from which frames to the peer leave.
func (p *remotePeer) provenPorts() (n int) {
	for i := range p.ports {
		if p.ports[i].Proven() {
			n++
		}
	}
	return n
}

// runEntropyPorts receives what arrives at the entropy ports, until they are closed. It has a goroutine of its own, so that the loops need
// not look for the few answers, and a flood of other datagrams there costs the frames nothing.
func (e *Engine) runEntropyPorts() error {
	sources := make([]poll.Source, len(e.ports))
	for i, c := range e.ports {
		sources[i] = c.Source()
	}
	poller, err := poll.New(sources...)
	if err != nil {
		return err
	}
	defer poller.Close()
	batch := make([]underlay.Datagram, portDatagrams)
	for i := range batch {
		batch[i].Buf = make([]byte, portBuffer)
	}
	for {
		more := false
		for i, c := range e.ports {
			n, err := c.ReadBatch(batch)
			if err != nil {
				return err
			}
			for _, d := range batch[:n] {
				if reason := e.handleAnswer(i, d.Buf, d.Addr); reason != 0 {
					e.drop(nil, reason, 1)
				}
			}
			more = more || n == len(batch)
		}
		if !more {
			if err := poller.Wait(); err != nil {
				return err
			}
		}
	}
}

// handleAnswer handles a datagram that arrived at an entropy port, and returns the reason to drop it. Only answers to probes and notices
// of unknown sessions are sent there.
func (e *Engine) handleAnswer(port int, datagram []byte, addr netip.AddrPort) drop.Reason {
	header, _, err := wire.Parse(datagram)
	switch {
	case err != nil:
		return wireDrop(err)
	case header.Type == wire.TypeUnknown:
		return e.handshakes.queueMessage(datagram, addr)
	case header.Type != wire.TypeProbeReply:
		return drop.Type
	}
	s := e.handshakes.node.Lookup(header.Session)
	if s == nil {
		return drop.Session
	}
	from := e.peers.Load().byID[s.Peer()]
	if from == nil {
		return drop.UnknownPeer
	}
	body, err := s.OpenAnswer(header, datagram)
	if err != nil {
		return sessionDrop(err)
	}
	now := e.now()
	e.onAuthenticated(s, from, addr, false, false, now.UnixNano())
	reply, err := wire.ParseProbeReply(body)
	if err != nil {
		return wireDrop(err)
	}
	e.probes.Add(1)
	from.mu.Lock()
	defer from.mu.Unlock()
	from.ports[port].Answered(entropyport.Probe{Token: reply.Token, Size: int(reply.Size)}, now)
	return 0
}
