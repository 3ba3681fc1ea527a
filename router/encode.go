package router

import (
	"errors"
	"net"
	"syscall"

	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap/virtio"
)

// sealedArena is the room in bytes for datagrams that are sealed elsewhere than where the frame lies. A superframe that
// fitsWire lets pass needs less: its heads, its payload and its tags.
const sealedArena = slicerHeads + 64<<10 + slicerPieces/2*wire.TagLen

// encoder makes datagrams of frames and sends them. All of it is owned by one goroutine.
type encoder struct {
	engine *Engine
	conn   underlay.Conn

	cut    slicer
	sealed []byte // datagrams, one behind the other
	used   int    // of sealed
	saved  []byte // what lay where a slice's headers are put for a moment

	datagrams []underlay.Datagram // to be sent
	sends     []send              // sends[i] is about datagrams[i]

	packer packer // of what goes over relays; its memory is that of datagrams
}

// send is what is counted of a datagram, or of a run of them, once it has left.
type send struct {
	to            *hop
	frames, bytes int
	relayed       bool
}

func newEncoder(e *Engine, c underlay.Conn) encoder {
	return encoder{
		engine: e, conn: c, cut: newSlicer(), sealed: make([]byte, sealedArena),
		saved:     make([]byte, 0, wire.MetaLen+wire.MaxOffset),
		datagrams: make([]underlay.Datagram, 0, outDatagrams),
		sends:     make([]send, 0, outDatagrams),
		packer:    packer{least: packerArena},
	}
}

// carry queues the frame f, or the slices of a superframe, for to by the lane l, whose path takes it. room is the memory
// around f: Headroom before it, and behind it a tag's where it was read to be sealed. shared says that the frame is needed
// once more as it is: its bytes then are left alone.
func (c *encoder) carry(f *outgoing, room []byte, to *hop, l *lane, shared bool) error {
	counter, ok := l.session.Reserve(f.frames)
	if !ok {
		c.engine.drop(to, DropNoSession, f.frames)
		return nil
	}
	l.session.Use()
	c.engine.captureSent(f, to.ID, l)
	if !c.fits(f) {
		if err := c.flush(); err != nil { // what is queued lies in the memory of slicer and arena
			return err
		}
	}
	return c.push(c.encode(f, room, l, counter, shared), l, send{to: to, frames: f.frames, bytes: f.bytes})
}

// fits reports whether there is room for all that f could need.
func (c *encoder) fits(f *outgoing) bool {
	n := max(f.layout.Segments, 1)
	return c.cut.fits(n, f.layout.HeaderLen) && c.used+f.bytes+n*(wire.Headroom+wire.TagLen) <= len(c.sealed)
}

// encode returns the datagrams of f, without an address.
func (c *encoder) encode(f *outgoing, room []byte, l *lane, counter uint64, shared bool) underlay.Datagram {
	frame := room[:wire.Headroom+len(f.Data)]
	switch {
	case f.isSuper() && l.plain:
		return c.cut.slice(f, l.session, counter)
	case f.isSuper():
		return c.sealSlices(f, room, l.session, counter)
	case l.plain && shared:
		return c.cut.whole(f, l.session, counter)
	case l.plain:
		putHead(frame, l.session, counter, f.meta())
		return underlay.Datagram{Buf: frame}
	}
	f.meta().Put(frame[wire.HeaderLen:])
	dst := room[:0]
	if shared || len(room) < len(frame)+wire.TagLen {
		dst = c.sealed[c.used:c.used]
		c.used += len(frame) + wire.TagLen
	}
	return underlay.Datagram{Buf: l.session.Seal(dst, wire.TypeFrame, counter, frame[wire.HeaderLen:])}
}

// putHead writes what stands before a frame that is not sealed.
func putHead(b []byte, s *session.Session, counter uint64, m wire.Meta) {
	s.PutHeader(b, wire.TypePlain, counter)
	m.Put(b[wire.HeaderLen:])
}

// sealSlices seals the slices of f one behind the other. For each the metadata and the superframe's headers are put
// before its payload where that lies, and what was there is put back: so the payload is read once, by the cipher.
func (c *encoder) sealSlices(f *outgoing, room []byte, s *session.Session, counter uint64) underlay.Datagram {
	l := &f.layout
	meta := metaOf(l)
	var headers [wire.MaxOffset]byte
	copy(headers[:], f.Data[:l.HeaderLen])
	start, at := c.used, wire.HeaderLen
	for i := range l.Segments {
		meta.Index, meta.Last = uint16(i), i == l.Segments-1
		body := room[at : at+wire.MetaLen+l.HeaderLen+len(l.Segment(f.Data, i))]
		c.saved = append(c.saved[:0], body[:wire.MetaLen+l.HeaderLen]...)
		meta.Put(body)
		copy(body[wire.MetaLen:], headers[:l.HeaderLen])
		sealed := s.Seal(c.sealed[c.used:c.used], wire.TypeFrame, counter+uint64(i), body)
		copy(body, c.saved)
		c.used += len(sealed)
		at += l.SegmentSize
	}
	return underlay.Datagram{
		Buf: c.sealed[start:c.used:c.used], SegmentSize: wire.Headroom + l.HeaderLen + l.SegmentSize + wire.TagLen,
	}
}

// metaOf returns the metadata of the slices of l but for what is each one's own.
func metaOf(l *virtio.Layout) wire.Meta {
	return wire.Meta{
		Kind: kindOf(l.Type), ECN: l.ECN, Partial: true, HeaderLen: uint8(l.HeaderLen), SegmentSize: uint16(l.SegmentSize),
		CsumStart: uint8(l.L4), CsumOffset: uint8(l.CsumOffset),
	}
}

// push queues d for the peer of s.
func (c *encoder) push(d underlay.Datagram, l *lane, s send) error {
	if len(c.datagrams) == cap(c.datagrams) {
		if err := c.send(); err != nil {
			return err
		}
	}
	d.Addr = l.addr
	if l.detour {
		var err error
		if d, s.relayed, err = c.detour(d, s); err != nil || !d.Addr.IsValid() {
			return err
		}
	}
	c.datagrams = append(c.datagrams, d)
	c.sends = append(c.sends, s)
	return nil
}

// detour returns d as it goes over a relay; without an address where it goes nowhere, which is counted.
func (c *encoder) detour(d underlay.Datagram, s send) (packed underlay.Datagram, relayed bool, err error) {
	if s.to.direct() { // again, and its lane is about to follow
		d.Addr = s.to.at
		return d, false, nil
	}
	l := c.engine.relayTo(s.to, nil)
	if l == nil {
		c.engine.drop(s.to, DropNoRoute, s.frames)
		return underlay.Datagram{}, true, nil
	}
	if !c.packer.fits(&d) {
		if err := c.send(); err != nil {
			return underlay.Datagram{}, true, err
		}
	}
	packed, ok := c.packer.pack(&d, l, wire.Relay{Hops: wire.MaxHops - 1, Source: c.engine.self, Destination: s.to.ID})
	if !ok {
		c.engine.drop(s.to, DropNoRoute, s.frames)
	}
	return packed, true, nil
}

// flush sends what is queued; nothing lies in the encoder's memory any more then.
func (c *encoder) flush() error {
	err := c.send()
	c.cut.reset()
	c.used = 0
	return err
}

// send sends what is queued and counts it.
func (c *encoder) send() error {
	if len(c.datagrams) == 0 {
		return nil
	}
	_, err := c.conn.WriteBatch(c.datagrams)
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	var sum tally
	for i := range c.datagrams {
		s := &c.sends[i]
		if err := c.datagrams[i].Err; err != nil {
			c.engine.drop(s.to, c.sendDrop(err, &c.datagrams[i], s), s.frames)
			continue
		}
		sum.add(&s.to.state.transmit, s.frames, s.bytes)
	}
	sum.flush()
	c.datagrams, c.sends = c.datagrams[:0], c.sends[:0]
	c.packer.reset()
	return nil
}

// sendDrop returns the reason that the error of a datagram stands for. That it is too long for this host's own link is
// news for the prober of the path.
func (c *encoder) sendDrop(err error, d *underlay.Datagram, s *send) Drop {
	if !errors.Is(err, syscall.EMSGSIZE) {
		return DropSend
	}
	size := d.SegmentSize
	if size == 0 {
		size = len(d.Buf)
		for _, piece := range d.More {
			size += len(piece)
		}
	}
	if s.relayed {
		size -= wire.RelayOverhead
	}
	s.to.state.path.tooBig(size, 0, c.engine.now())
	return DropSendTooLong
}
