package router

import (
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"time"

	"weft/internal/peer"
	"weft/router/underlay"
	"weft/router/wire"
)

// detours holds the addresses that stand for nodes reached over relays, for all that sends to addresses and learns them:
// they are of the prefix that is discarded everywhere (RFC 6666), with the ID of the node behind it.
var detours = netip.MustParsePrefix("100::/64")

// detour returns the address that stands for the way to a peer over relays.
func detour(id peer.ID) netip.AddrPort {
	addr := detours.Addr().As16()
	copy(addr[8:], id[:])
	return netip.AddrPortFrom(netip.AddrFrom16(addr), 1)
}

func isDetour(addr netip.AddrPort) bool { return addr.Addr().Is6() && detours.Contains(addr.Addr()) }

// detourOf returns whom a detour leads to.
func detourOf(addr netip.AddrPort) peer.ID {
	text := addr.Addr().As16()
	return peer.ID(text[8:])
}

// passed counts what this node has relayed for others.
type passed struct{ datagrams, bytes atomic.Uint64 }

// relayTo returns the lane by which datagrams for a peer leave, its own or that of its relay; nil where there is none at
// present. They never go back to the peer they come from, which may be nil.
func (e *Engine) relayTo(to, from *hop) *lane {
	relay := to
	if !to.direct() {
		relay = e.peers.Load().byID[to.Via]
	}
	if relay == nil || !relay.direct() || from != nil && relay.ID == from.ID {
		return nil
	}
	l := relay.state.crossing.lane.Load()
	if l.session == nil {
		e.want(relay)
		return nil
	}
	if l.detour {
		return nil // its lane is about to follow
	}
	return l
}

// towards returns datagram as it leaves for addr, which may be a detour; ok is false where there is no way.
func (e *Engine) towards(addr netip.AddrPort, datagram []byte) (d underlay.Datagram, ok bool) {
	d = underlay.Datagram{Addr: addr, Buf: datagram}
	if !isDetour(addr) {
		return d, true
	}
	to := e.peers.Load().byID[detourOf(addr)]
	switch {
	case to == nil || !to.reached():
		return d, false
	case to.direct(): // as far as this node knows, though the other came by a relay
		d.Addr = to.at
		return d, true
	}
	l := e.relayTo(to, nil)
	if l == nil {
		return d, false
	}
	var p packer
	return p.pack(&d, l, wire.Relay{Hops: wire.MaxHops - 1, Source: e.self, Destination: to.ID})
}

// packerArena is room for what a superframe becomes.
const packerArena = sealedArena + slicerPieces/2*wire.RelayOverhead

// packer packs datagrams into those that go to relays.
type packer struct {
	least int    // bytes of memory to begin with, once there is need of it: hardly anybody relays
	arena []byte // nil until then
	used  int
}

func (p *packer) reset() { p.used = 0 }

// room returns the bytes that d takes.
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

// pack returns what carries d, or the datagrams in it, to a relay by the lane l. It lies in p's memory; where d does not
// fit that is replaced. ok is false at the end of a session.
func (p *packer) pack(d *underlay.Datagram, l *lane, r wire.Relay) (packed underlay.Datagram, ok bool) {
	size, room := length(d), p.room(d)
	n := (room - size) / wire.RelayOverhead
	counter, ok := l.session.Reserve(n)
	if !ok {
		return underlay.Datagram{}, false
	}
	l.session.Use()
	if p.used+room > len(p.arena) {
		p.arena, p.used = make([]byte, max(room, p.least)), 0
	}
	from := cutter{now: d.Buf, more: d.More}
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
		l.session.Seal(at[:0], wire.TypeRelay, counter+uint64(i), body)
		p.used += len(at)
	}
	packed = underlay.Datagram{Addr: l.addr, Buf: p.arena[start:p.used:p.used]}
	if d.SegmentSize > 0 {
		packed.SegmentSize = d.SegmentSize + wire.RelayOverhead
	}
	return packed, true
}

// cutter reads pieces as if they were one.
type cutter struct {
	now  []byte
	more [][]byte
}

// read fills b with what comes next; there must be as much.
func (c *cutter) read(b []byte) {
	for len(b) > 0 {
		for len(c.now) == 0 {
			c.now, c.more = c.more[0], c.more[1:]
		}
		n := copy(b, c.now)
		b, c.now = b[n:], c.now[n:]
	}
}

// relay takes a relayed datagram that came from a peer: one for this node as if it had come from its source, and one for
// another node on to that.
func (in *inbound) relay(body []byte, from *hop, peers *snapshot, now time.Time, longest int) (*hop, Drop) {
	r, datagram, err := wire.ParseRelay(body)
	if err != nil {
		return from, relayDrop(err)
	}
	in.session.Use()
	if r.Destination == in.engine.self {
		return in.take(datagram, detour(r.Source), peers, now, longest)
	}
	to := peers.byID[r.Destination]
	if to == nil {
		return from, DropUnknownPeer
	}
	return from, in.forward.add(datagram, r, to, from)
}

func relayDrop(err error) Drop {
	if errors.Is(err, wire.ErrRelay) {
		return DropRelay
	}
	return wireDrop(err)
}

// forwarder sends on what a socket has received for others. It is owned by the goroutine of the socket.
type forwarder struct {
	engine *Engine
	conn   underlay.Conn
	packer packer
	batch  []underlay.Datagram
}

// add has datagram sent on to its destination, or to the next relay on the way there.
func (f *forwarder) add(datagram []byte, r wire.Relay, to, from *hop) Drop {
	if r.Hops == 0 {
		return DropRelay
	}
	r.Hops--
	l := f.engine.relayTo(to, from)
	if l == nil {
		return DropNoRoute
	}
	d := underlay.Datagram{Buf: datagram}
	if !f.packer.fits(&d) || len(f.batch) == outDatagrams {
		if f.flush() != nil {
			return DropSend
		}
	}
	packed, ok := f.packer.pack(&d, l, r)
	if !ok {
		return DropNoSession
	}
	f.batch = append(f.batch, packed)
	f.engine.passed.datagrams.Add(1)
	f.engine.passed.bytes.Add(uint64(len(datagram)))
	f.engine.links.introduce(from, to)
	return 0
}

// forwardArena is the memory of a forwarder: what a batch of datagrams becomes that the kernel has joined.
const forwardArena = 256 << 10

// flush sends what is queued; what does not leave is as good as lost. It fails only where the socket is closed.
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
