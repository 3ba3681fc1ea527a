package router

import (
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"

	"weft/internal/peer"
	"weft/router/endpoint"
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
	var p packer
	return p.pack(&d, out, wire.Relay{Hops: wire.MaxHops - 1, Source: e.self, Destination: to.ID})
}

// packerArena is room in bytes for the relayed datagrams of a superframe.
const packerArena = sealedArena + segmenter.Pieces/2*wire.RelayOverhead

// packer wraps datagrams into datagrams for relays.
type packer struct {
	least int    // bytes of memory to allocate when the first datagram is packed: most nodes never relay
	arena []byte // nil until then
	used  int
}

func (p *packer) reset() { p.used = 0 }

// room returns the bytes that d takes when it is packed.
func (p *packer) room(d *underlay.Datagram) int {
	n, size := 1, length(d)
	if d.SegmentSize > 0 {
		n = (size + d.SegmentSize - 1) / d.SegmentSize
	}
	return size + n*wire.RelayOverhead
}

func length(d *underlay.Datagram) int {
	n := len(d.Buf)
	for _, piece := range d.More {
		n += len(piece)
	}
	return n
}

// fits reports whether there is room for d.
func (p *packer) fits(d *underlay.Datagram) bool {
	return p.arena == nil || p.used+p.room(d) <= len(p.arena)
}

// pack returns the datagram that carries d, or the datagrams in it, to a relay by out, with the TOS of d. It lies in p's memory, which is
// replaced if d does not fit. ok is false at the end of a session.
func (p *packer) pack(d *underlay.Datagram, out *egress, r wire.Relay) (packed underlay.Datagram, ok bool) {
	size, room := length(d), p.room(d)
	n := (room - size) / wire.RelayOverhead
	counter, ok := out.session.Reserve(n)
	if !ok {
		return underlay.Datagram{}, false
	}
	out.session.Use()
	if p.used+room > len(p.arena) {
		p.arena, p.used = make([]byte, max(room, p.least)), 0
	}
	from := gatherReader{now: d.Buf, more: d.More}
	start := p.used
	for i := range n {
		segment := size
		if d.SegmentSize > 0 {
			segment = min(d.SegmentSize, size-i*d.SegmentSize)
		}
		at := p.arena[p.used : p.used+segment+wire.RelayOverhead]
		body := at[wire.HeaderLen : len(at)-wire.TagLen]
		r.Put(body)
		from.read(body[wire.RelayLen:])
		out.session.Seal(at[:0], wire.TypeRelay, counter+uint64(i), body)
		p.used += len(at)
	}
	packed = underlay.Datagram{Addr: out.addr, Buf: p.arena[start:p.used:p.used], TOS: d.TOS}
	if d.SegmentSize > 0 {
		packed.SegmentSize = d.SegmentSize + wire.RelayOverhead
	}
	return packed, true
}

// gatherReader reads pieces as if they were one.
type gatherReader struct {
	now  []byte
	more [][]byte
}

// read fills b with the next bytes; there must be enough.
func (g *gatherReader) read(b []byte) {
	for len(b) > 0 {
		for len(g.now) == 0 {
			g.now, g.more = g.more[0], g.more[1:]
		}
		n := copy(b, g.now)
		b, g.now = b[n:], g.now[n:]
	}
}

// handleRelay handles a relayed datagram that came from a peer. One for this node is handled as if it had come from its
// source; one for another node is forwarded.
func (in *inbound) handleRelay(body []byte, from *peerView) (*peerView, Drop) {
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
		return from, DropUnknownPeer
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

func relayDrop(err error) Drop {
	if errors.Is(err, wire.ErrRelay) {
		return DropRelay
	}
	return wireDrop(err)
}

// forwarder sends the datagrams for other nodes that a socket has received. It is owned by the loop of the socket.
type forwarder struct {
	engine *Engine
	conn   underlay.Conn
	packer packer
	batch  []underlay.Datagram
}

// add queues datagram for its destination, or for the next relay on the path there. tos is that of the datagram that it came in.
func (f *forwarder) add(datagram []byte, tos uint8, r wire.Relay, to, from *peerView) Drop {
	if r.Hops == 0 {
		return DropRelay
	}
	r.Hops--
	out := f.engine.nextHop(to, from)
	if out == nil {
		return DropNoRoute
	}
	d := underlay.Datagram{Buf: datagram, TOS: tos & f.engine.tosMask}
	if !f.packer.fits(&d) || len(f.batch) == outDatagrams {
		if f.flush() != nil {
			return DropSend
		}
	}
	packed, ok := f.packer.pack(&d, out, r)
	if !ok {
		return DropNoSession
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
	f.packer.reset()
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	return nil
}
