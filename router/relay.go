package router

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"

	"weft/internal/peer"
	"weft/router/drop"
	"weft/router/endpoint"
	"weft/router/relay"
	"weft/router/segmenter"
	"weft/router/underlay"
	"weft/router/wire"
)

// relayCounters counts what this node has relayed for others.
type relayCounters struct{ datagrams, bytes atomic.Uint64 }

// nextHop returns the egress to the next hop of datagrams for a peer: the peer itself, or its relay. It returns nil if
// there is none at present. Datagrams never go back to the peer that they come from, which may be nil.
func (e *Engine) nextHop(to, from *peerView) *egress {
	next := to
	if !to.direct() {
		next = e.peers.Load().byID[to.Via]
	}
	if next == nil || !next.direct() || from != nil && next.ID == from.ID {
		return nil
	}
	out := next.egress.Load()
	if out.session == nil {
		e.requestSession(next)
		return nil
	}
	if out.relayed {
		return nil // the view is newer than the egress, which SetPeers is about to update
	}
	return out
}

// datagramTo returns a datagram as it leaves for addr, which may be a relayed endpoint; ok is false if there is no
// route.
func (e *Engine) datagramTo(addr netip.AddrPort, datagram []byte) (d underlay.Datagram, ok bool) {
	d = underlay.Datagram{Addr: addr, Buf: datagram}
	if !endpoint.IsRelayed(addr) {
		return d, true
	}
	to := e.peers.Load().byID[endpoint.Peer(addr)]
	switch {
	case to == nil || !to.reachable():
		return d, false
	case to.direct(): // as far as this node knows, although the peer came over a relay
		d.Addr = to.home
		return d, true
	}
	out := e.nextHop(to, nil)
	if out == nil {
		return d, false
	}
	p := relay.NewPacker(0)
	return p.Pack(&d, out.session, out.addr, wire.Relay{Hops: wire.MaxHops - 1, Source: e.self, Destination: to.ID})
}

// packerArena is room in bytes for the relayed datagrams of a superframe.
const packerArena = sealedArena + segmenter.Pieces/2*wire.RelayOverhead

// handleRelay handles a relayed datagram that came from a peer. One for this node is handled as if it had come from its
// source; one for another node is forwarded.
func (in *inbound) handleRelay(body []byte, from *peerView) (*peerView, drop.Reason) {
	r, datagram, err := wire.ParseRelay(body)
	if err != nil {
		return from, relayDrop(err)
	}
	in.session.Use()
	if r.Destination == in.engine.self {
		source, reason := in.handleDatagram(datagram, endpoint.Relayed(r.Source))
		if source != nil && reason == 0 {
			source.noteRelay(from.ID)
		}
		return source, reason
	}
	to := in.peers.byID[r.Destination]
	if to == nil {
		return from, drop.UnknownPeer
	}
	return from, in.forward.add(datagram, in.tos, r, to, from)
}

// noteRelay notes that an authenticated datagram of the peer has come over a relay.
func (p *remotePeer) noteRelay(by peer.ID) {
	if id := binary.BigEndian.Uint64(by[:]); p.relayedBy.Load() != id {
		p.relayedBy.Store(id)
	}
}

// relays reports whether a peer relays between this node and another peer: it is the relay in use, or the other one uses it.
func (v *peerView) relays(to *peerView) bool {
	return !to.Via.IsZero() && (to.Via == v.ID || to.relayedBy.Load() == binary.BigEndian.Uint64(v.ID[:]))
}

func relayDrop(err error) drop.Reason {
	if errors.Is(err, wire.ErrRelay) {
		return drop.Relay
	}
	return wireDrop(err)
}

// forwarder sends the datagrams for other nodes that a socket has received. It is owned by the loop of the socket.
type forwarder struct {
	engine *Engine
	conn   underlay.Conn
	packer relay.Packer
	batch  []underlay.Datagram
}

// add queues datagram for its destination, or for the next relay on the path there. tos is that of the datagram that it came in.
func (f *forwarder) add(datagram []byte, tos uint8, r wire.Relay, to, from *peerView) drop.Reason {
	if r.Hops == 0 {
		return drop.Relay
	}
	r.Hops--
	out := f.engine.nextHop(to, from)
	if out == nil {
		return drop.NoRoute
	}
	d := underlay.Datagram{Buf: datagram, TOS: tos & f.engine.tosMask}
	if !f.packer.Fits(&d) || len(f.batch) == outDatagrams {
		if f.flush() != nil {
			return drop.Send
		}
	}
	packed, ok := f.packer.Pack(&d, out.session, out.addr, r)
	if !ok {
		return drop.NoSession
	}
	f.batch = append(f.batch, packed)
	f.engine.relayed.datagrams.Add(1)
	f.engine.relayed.bytes.Add(uint64(len(datagram)))
	f.engine.coordinateHolePunch(from, to)
	return 0
}

// forwardArena is the memory of a forwarder in bytes: room for a batch of datagrams that the kernel has coalesced.
const forwardArena = 256 << 10

// flush sends what is queued. Datagrams that cannot be sent count as lost. It fails only if the socket is closed.
func (f *forwarder) flush() error {
	if len(f.batch) == 0 {
		return nil
	}
	_, err := f.conn.WriteBatch(f.batch)
	f.batch = f.batch[:0]
	f.packer.Reset()
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
