package router

import (
	"errors"
	"net"
	"syscall"
	"time"

	"weft/router/counters"
	"weft/router/drop"
	"weft/router/ecn"
	"weft/router/relay"
	"weft/router/segmenter"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
)

// sealedArena is the room in bytes for datagrams that are not sealed where the frame lies. A superframe that
// segmenter.FitsWire accepts needs less: its heads, its payload and its tags.
const sealedArena = segmenter.Heads + 64<<10 + segmenter.Pieces/2*wire.TagLen

// encoder makes datagrams of frames and sends them. It is owned by one goroutine.
type encoder struct {
	engine *Engine
	now    time.Time // of the frames

	segmenter segmenter.Segmenter
	sealed    []byte // datagrams, one after the other; nil until there is one
	used      int    // of sealed
	saved     []byte // the bytes that a segment's headers replace for a moment

	data  socketBatch   // from the data port
	ports []socketBatch // from the entropy ports; nil: none is used

	packer relay.Packer // of relayed datagrams; its memory is that of datagrams
}

// socketBatch is what is queued for one socket.
type socketBatch struct {
	conn      underlay.Conn
	datagrams []underlay.Datagram // to be sent
	sends     []send              // sends[i] describes datagrams[i]
}

func newSocketBatch(c underlay.Conn) socketBatch {
	return socketBatch{conn: c, datagrams: make([]underlay.Datagram, 0, outDatagrams), sends: make([]send, 0, outDatagrams)}
}

// send is what is counted of a datagram, or of a run of them, once it was sent.
type send struct {
	to            *peerView
	frames, bytes int
	relayed       bool
}

func newEncoder(e *Engine, c underlay.Conn) encoder {
	return encoder{
		engine: e, data: newSocketBatch(c),
		saved:  make([]byte, 0, wire.MetaLen+wire.MaxOffset),
		packer: relay.NewPacker(packerArena),
	}
}

// carry queues the frame f, or the segments of a superframe, for a peer by out. The path must take it. room is the
// memory around f: Headroom before it, and room for a tag after it if it was read to be sealed. shared says that the
// frame is needed again unchanged: then its bytes are not modified.
func (c *encoder) carry(f *outgoing, room []byte, to *peerView, out *egress, shared bool) error {
	counter, ok := out.session.Reserve(f.frames)
	if !ok {
		c.engine.drop(to, drop.NoSession, f.frames)
		return nil
	}
	out.session.Use()
	c.engine.watchSent(f, to.ID, out)
	if !c.fits(f) {
		if err := c.flush(); err != nil { // queued datagrams lie in the memory of segmenter and arena
			return err
		}
	}
	tos := ecn.TOS(f.Data) & c.engine.tosMask // the segments of a superframe have one IP header; encode may seal it in place
	from := c.batchFor(f, to, out, shared)
	d, s := c.encode(f, room, out, counter, shared, from != &c.data), send{to: to, frames: f.frames, bytes: f.bytes}
	if f.cut {
		c.engine.drop(to, drop.Queue, 1)
		s.frames, s.bytes = s.frames-1, s.bytes-cutLast(&d, f)
	}
	d.TOS = tos
	return c.push(d, out, s, from)
}

// cutLast removes the last datagram of those of the superframe f, and returns the length of the frame in it. The receiver takes it for
// lost.
func cutLast(d *underlay.Datagram, f *outgoing) int {
	l := &f.layout
	frame := l.HeaderLen + len(l.Segment(f.Data, l.Segments-1))
	if n := len(d.More); n > 0 { // plain: a head and a payload each
		d.More = d.More[:n-2]
	} else {
		d.Buf = d.Buf[:len(d.Buf)-wire.Headroom-frame-wire.TagLen]
	}
	return frame
}

// fits reports whether there is room for all that f could need.
func (c *encoder) fits(f *outgoing) bool {
	n := max(f.layout.Segments, 1)
	return c.segmenter.Fits(n, f.layout.HeaderLen) && c.used+f.bytes+n*(wire.Headroom+wire.TagLen) <= sealedArena
}

// free returns the room behind the sealed datagrams.
func (c *encoder) free() []byte {
	if c.sealed == nil {
		c.sealed = make([]byte, sealedArena)
	}
	return c.sealed[c.used:c.used]
}

// encode returns the datagrams of f, without an address. port says that they leave from an entropy port.
func (c *encoder) encode(f *outgoing, room []byte, out *egress, counter uint64, shared, port bool) underlay.Datagram {
	frame := room[:wire.Headroom+len(f.Data)]
	switch {
	case f.isSuper() && out.plain:
		return datagramOf(c.segmenter.Segment(&f.layout, f.Data, out.session, counter, port))
	case f.isSuper():
		return c.sealSegments(f, room, out.session, counter, port)
	case out.plain && shared:
		return datagramOf(c.segmenter.Whole(f.Data, f.meta(port), out.session, counter))
	case out.plain:
		segmenter.PutHead(frame, out.session, counter, f.meta(port))
		return underlay.Datagram{Buf: frame}
	}
	f.meta(port).Put(frame[wire.HeaderLen:])
	dst := room[:0]
	if shared || len(room) < len(frame)+wire.TagLen {
		dst = c.free()
		c.used += len(frame) + wire.TagLen
	}
	return underlay.Datagram{Buf: out.session.Seal(dst, wire.TypeFrame, counter, frame[wire.HeaderLen:])}
}

// datagramOf returns d in the form of the underlay, without an address.
func datagramOf(d segmenter.Datagrams) underlay.Datagram {
	return underlay.Datagram{Buf: d.Head, More: d.More, SegmentSize: d.Size}
}

// sealSegments seals the segments of f one after the other. For each it writes the metadata and the superframe's
// headers in front of the segment's payload, seals, and restores the bytes that were there. So the cipher is the only
// one that reads the payload.
func (c *encoder) sealSegments(f *outgoing, room []byte, s *session.Session, counter uint64, port bool) underlay.Datagram {
	l := &f.layout
	meta := segmenter.MetaOf(l, port)
	var headers [wire.MaxOffset]byte
	copy(headers[:], f.Data[:l.HeaderLen])
	start, at := c.used, wire.HeaderLen
	for i := range l.Segments {
		meta.Index, meta.Last = uint16(i), i == l.Segments-1
		body := room[at : at+wire.MetaLen+l.HeaderLen+len(l.Segment(f.Data, i))]
		c.saved = append(c.saved[:0], body[:wire.MetaLen+l.HeaderLen]...)
		meta.Put(body)
		copy(body[wire.MetaLen:], headers[:l.HeaderLen])
		sealed := s.Seal(c.free(), wire.TypeFrame, counter+uint64(i), body)
		copy(body, c.saved)
		c.used += len(sealed)
		at += l.SegmentSize
	}
	return underlay.Datagram{
		Buf: c.sealed[start:c.used:c.used], SegmentSize: wire.Headroom + l.HeaderLen + l.SegmentSize + wire.TagLen,
	}
}

// push queues d for the peer of s in the batch from.
func (c *encoder) push(d underlay.Datagram, out *egress, s send, from *socketBatch) error {
	if len(from.datagrams) == cap(from.datagrams) {
		if err := c.send(); err != nil {
			return err
		}
	}
	d.Addr = out.addr
	if out.relayed {
		var err error
		if d, s.relayed, err = c.relay(d, s); err != nil || !d.Addr.IsValid() {
			return err
		}
	}
	from.datagrams = append(from.datagrams, d)
	from.sends = append(from.sends, s)
	return nil
}

// relay returns d wrapped for a relay. If there is no route it returns a datagram without an address, and counts the
// drop.
func (c *encoder) relay(d underlay.Datagram, s send) (packed underlay.Datagram, relayed bool, err error) {
	if s.to.direct() { // the view is newer than the egress, which SetPeers is about to update
		d.Addr = s.to.home
		return d, false, nil
	}
	out := c.engine.nextHop(s.to, nil)
	if out == nil {
		c.engine.drop(s.to, drop.NoRoute, s.frames)
		return underlay.Datagram{}, true, nil
	}
	if !c.packer.Fits(&d) {
		if err := c.send(); err != nil {
			return underlay.Datagram{}, true, err
		}
	}
	packed, ok := c.packer.Pack(&d, out.session, out.addr, wire.Relay{Hops: wire.MaxHops - 1, Source: c.engine.self, Destination: s.to.ID})
	if !ok {
		c.engine.drop(s.to, drop.NoRoute, s.frames)
	}
	return packed, true, nil
}

// flush sends what is queued, and releases the encoder's memory.
func (c *encoder) flush() error {
	err := c.send()
	c.segmenter.Reset()
	c.used = 0
	return err
}

// send sends what is queued.
func (c *encoder) send() error {
	err := c.sendBatch(&c.data)
	for i := range c.ports {
		if err == nil {
			err = c.sendBatch(&c.ports[i])
		}
	}
	c.packer.Reset()
	return err
}

// sendBatch sends what is queued for one socket, and counts it.
func (c *encoder) sendBatch(b *socketBatch) error {
	if len(b.datagrams) == 0 {
		return nil
	}
	_, err := b.conn.WriteBatch(b.datagrams)
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	var sum counters.Tally
	for i := range b.datagrams {
		s := &b.sends[i]
		if err := b.datagrams[i].Err; err != nil {
			c.engine.drop(s.to, c.sendDrop(err, &b.datagrams[i], s), s.frames)
			continue
		}
		sum.Add(&s.to.transmit, s.frames, s.bytes)
	}
	sum.Flush()
	b.datagrams, b.sends = b.datagrams[:0], b.sends[:0]
	return nil
}

// sendDrop returns the reason for the error of a datagram. If it is too long for this host's own link, the prober of
// the path learns that.
func (c *encoder) sendDrop(err error, d *underlay.Datagram, s *send) drop.Reason {
	if !errors.Is(err, syscall.EMSGSIZE) {
		return drop.Send
	}
	size := d.SegmentSize
	if size == 0 {
		size = relay.Length(d)
	}
	if s.relayed {
		size -= wire.RelayOverhead
	}
	s.to.datagramTooBig(size, 0, c.engine.now())
	return drop.DatagramExceedsLinkMTU
}
