// Package relay wraps datagrams into datagrams for relays. It starts no goroutine and does no I/O.
package relay

import (
	"net/netip"

	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
)

// Packer wraps datagrams into datagrams for relays. It belongs to one goroutine.
type Packer struct {
	least int    // bytes of memory to allocate when the first datagram is packed: most nodes never relay
	arena []byte // nil until then
	used  int
}

// NewPacker returns a Packer that allocates at least a number of bytes when it packs its first datagram.
func NewPacker(least int) Packer { return Packer{least: least} }

// Reset releases the memory of all packed datagrams.
func (p *Packer) Reset() { p.used = 0 }

// room returns the bytes that d takes when it is packed.
func (p *Packer) room(d *underlay.Datagram) int {
	n, size := 1, Length(d)
	if d.SegmentSize > 0 {
		n = (size + d.SegmentSize - 1) / d.SegmentSize
	}
	return size + n*wire.RelayOverhead
}

// Length returns the length of the payload of d in bytes.
func Length(d *underlay.Datagram) int {
	n := len(d.Buf)
	for _, piece := range d.More {
		n += len(piece)
	}
	return n
}

// Fits reports whether there is room for d.
func (p *Packer) Fits(d *underlay.Datagram) bool {
	return p.arena == nil || p.used+p.room(d) <= len(p.arena)
}

// Pack returns the datagram that carries d, or the datagrams in it, to a relay at addr by a session with it, with the TOS of d. It lies in
// p's memory, which is replaced if d does not fit. ok is false at the end of a session.
func (p *Packer) Pack(d *underlay.Datagram, by *session.Session, addr netip.AddrPort, r wire.Relay) (packed underlay.Datagram, ok bool) {
	size, room := Length(d), p.room(d)
	n := (room - size) / wire.RelayOverhead
	counter, ok := by.Reserve(n)
	if !ok {
		return underlay.Datagram{}, false
	}
	by.Use()
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
		by.Seal(at[:0], wire.TypeRelay, counter+uint64(i), body)
		p.used += len(at)
	}
	packed = underlay.Datagram{Addr: addr, Buf: p.arena[start:p.used:p.used], TOS: d.TOS}
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
