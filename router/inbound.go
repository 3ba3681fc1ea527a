package router

import (
	"errors"
	"net/netip"
	"time"

	"weft/internal/ether"
	"weft/internal/offheap"
	"weft/router/counters"
	"weft/router/drop"
	"weft/router/ecn"
	"weft/router/endpoint"
	"weft/router/neighbor"
	"weft/router/relay"
	"weft/router/segmenter"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap/virtio"
)

// Sizes of the arena of a socket. Its buffers take any datagram whole, and any run of them that the kernel has
// coalesced, so that none is truncated. Of a buffer that never receives much, only the first page is ever in memory.
const (
	inDatagrams = 16
	inBuffer    = 64 << 10 // bytes
	inFrames    = 512      // written to the TAP at once
	inPieces    = 2048     // of which superframes are coalesced
)

// inbound carries frames from one socket to one TAP queue. It is owned by a loop.
type inbound struct {
	engine *Engine
	conn   underlay.Conn
	writer tapWriter

	arena     *offheap.Memory // of the buffers of batch
	batch     []underlay.Datagram
	coalescer *virtio.Coalescer // its frames lie in the buffers of batch
	sum       counters.Tally
	taken     int // frames passed to the coalescer since the last flush

	forward forwarder // of datagrams for other nodes
	sources sourceChecker

	// Of the present batch.

	now     time.Time
	stamp   int64 // now in nanoseconds of Unix time
	peers   *snapshot
	longest int   // length of a frame in bytes
	tos     uint8 // of the datagrams that split handles

	// Of the last datagram, as a run of them mostly has one sender: its session, nil for none, and the peer of that,
	// nil if it has left.

	session *session.Session
	from    *peerView

	// The source that was last learned.

	learned     ether.Addr
	learnedFrom *peerView
}

func newInbound(e *Engine, c underlay.Conn, w tapWriter) *inbound {
	in := &inbound{
		engine:    e,
		conn:      c,
		writer:    w,
		arena:     offheap.New(inDatagrams * inBuffer),
		batch:     make([]underlay.Datagram, inDatagrams),
		coalescer: virtio.NewCoalescer(e.device.Features(), inFrames, inPieces),

		forward: forwarder{engine: e, conn: c, packer: relay.NewPacker(forwardArena)},
		sources: sourceChecker{owners: e.sources},
	}
	arena := in.arena.Bytes()
	for i := range in.batch {
		in.batch[i].Buf = arena[i*inBuffer : (i+1)*inBuffer : (i+1)*inBuffer]
	}
	return in
}

// step carries one batch. It reports whether there may be more.
func (in *inbound) step() (more bool, err error) {
	n, err := in.conn.ReadBatch(in.batch)
	if err != nil || n == 0 {
		return false, err
	}
	in.engine.receive.Count(n)
	in.begin()
	for i := range in.batch[:n] {
		if endpoint.IsRelayed(in.batch[i].Addr) {
			continue // no node has such an address
		}
		if err := in.split(&in.batch[i]); err != nil {
			return false, err
		}
	}
	in.sum.Flush()
	if err := in.forward.flush(); err != nil {
		return false, err
	}
	return n == len(in.batch), in.flush() // before the buffers are used again
}

// begin begins a batch.
func (in *inbound) begin() {
	e := in.engine
	in.now, in.peers, in.longest = e.now(), e.peers.Load(), int(e.longest.Load())
	in.session, in.from, in.learnedFrom = nil, nil, nil
	in.stamp = in.now.UnixNano()
	in.sources.begin(in.now)
}

// split handles the datagrams that lie in d one by one.
func (in *inbound) split(d *underlay.Datagram) error {
	in.tos = d.TOS
	size := d.SegmentSize
	if size <= 0 {
		size = max(len(d.Buf), 1)
	}
	for at := 0; at == 0 || at < len(d.Buf); at += size {
		if in.coalescer.Full() {
			if err := in.flush(); err != nil {
				return err
			}
		}
		if from, reason := in.handleDatagram(d.Buf[at:min(at+size, len(d.Buf))], d.Addr); reason != 0 {
			in.engine.drop(from, reason, 1)
		}
	}
	return nil
}

// handleDatagram handles one datagram that came from addr. It returns the reason to drop it, 0 for none, and the peer
// that has sent it, nil where that is not certain.
func (in *inbound) handleDatagram(datagram []byte, addr netip.AddrPort) (from *peerView, reason drop.Reason) {
	header, rest, err := wire.Parse(datagram)
	if err != nil {
		return nil, wireDrop(err)
	}
	switch {
	case header.Type.IsHandshake():
		return nil, in.engine.handshakes.queueMessage(datagram, addr)
	case header.Type == wire.TypeDialBack && endpoint.IsRelayed(addr):
		return nil, drop.Relay // it would show nothing
	case header.Type == wire.TypeDialBack:
		in.engine.dialBacks.Arrive(header.Counter)
		return nil, 0
	}
	in.lookup(header.Session)
	s, from := in.session, in.from
	switch {
	case s == nil:
		in.engine.handshakes.queueStray(header, addr)
		return nil, drop.Session
	case from == nil:
		return nil, drop.UnknownPeer // it has just left
	case header.Type == wire.TypePlain:
		return from, in.handlePlain(header, rest, addr)
	}
	body, newest, err := s.Open(header, datagram)
	if err != nil {
		return from, sessionDrop(err)
	}
	locates := wire.Locates(header.Type, body)
	if locates {
		from.noteHeard(in.stamp)
	}
	in.engine.onAuthenticated(s, from, addr, newest, locates, in.stamp)
	switch header.Type {
	case wire.TypeFrame:
		return from, in.handleFrame(header, body)
	case wire.TypeProbe:
		return from, in.handleProbe(body, len(datagram), addr)
	case wire.TypePortProbe:
		if endpoint.IsRelayed(addr) {
			return from, drop.Relay // no entropy port sends over a relay
		}
		return from, in.handleProbe(body, len(datagram), addr)
	case wire.TypeProbeReply:
		return from, in.handleProbeReply(body, from, addr)
	case wire.TypeRelay:
		return in.handleRelay(body, from)
	case wire.TypeControl:
		return from, in.handleControl(body, from)
	default: // a keepalive has no content
		return from, 0
	}
}

// lookup sets session and from to those of the datagrams with an index.
func (in *inbound) lookup(index uint32) {
	if in.session != nil && in.session.Index() == index {
		return
	}
	in.session, in.from = in.engine.handshakes.node.Lookup(index), nil
	if in.session != nil {
		in.from = in.peers.byID[in.session.Peer()]
	}
}

// handlePlain handles a frame of the present session that is not sealed.
func (in *inbound) handlePlain(header wire.Header, rest []byte, addr netip.AddrPort) drop.Reason {
	if !in.engine.trusts(addr.Addr()) {
		return drop.NotSealed
	}
	if err := in.session.AcceptPlain(header, rest); err != nil {
		return sessionDrop(err)
	}
	return in.handleFrame(header, rest)
}

// handleFrame passes the frame of the present session, or the segment of a superframe, that follows a wire header to
// the TAP. A frame from a peer is never sent to another peer, otherwise it would circle in the mesh.
func (in *inbound) handleFrame(header wire.Header, rest []byte) (reason drop.Reason) {
	meta, frame, err := wire.ParseMeta(rest)
	if err != nil {
		return wireDrop(err)
	}
	if reason := check(frame, len(frame), in.longest); reason != 0 {
		return reason
	}
	if header.Type == wire.TypeFrame {
		if reason := in.admits(frame); reason != 0 {
			return reason
		}
	}
	// The coalescer joins only segments with equal headers, so a superframe arrives in parts, marked as its segments were. To mark it
	// whole would be cheaper, but would report dozens of marks where there was one (RFC 8257, RFC 9331).
	if ecn.Changes(in.tos) && !ecn.Decapsulate(frame, in.tos) {
		return drop.NotECT
	}
	if meta.Kind == wire.KindNone {
		if neighbor.MayBe(frame) {
			in.engine.learnNeighbor(frame, in.from.ID, in.now)
		}
		err = in.coalescer.AddFrame(offloadOf(meta), frame)
	} else {
		err = in.coalescer.AddSegment(header.Session, segmenter.InfoOf(header, meta), frame)
	}
	if err != nil {
		return drop.Offload
	}
	if source := ether.Source(frame); in.from != in.learnedFrom || source != in.learned {
		in.engine.learn(source, in.from.ID, in.now)
		in.learned, in.learnedFrom = source, in.from
	}
	in.session.Use()
	in.taken++
	in.sum.Add(&in.from.receive, 1, len(frame))
	return 0
}

// offloadOf returns the offload header of a single frame.
func offloadOf(m wire.Meta) virtio.Header {
	if !m.Partial {
		return virtio.Header{}
	}
	return virtio.Header{
		Flags: virtio.FlagNeedsChecksum, CsumStart: uint16(m.CsumStart), CsumOffset: uint16(m.CsumOffset),
	}
}

// wireDrop returns the reason for an error of package wire.
func wireDrop(err error) drop.Reason {
	switch {
	case errors.Is(err, wire.ErrShort):
		return drop.Truncated
	case errors.Is(err, wire.ErrVersion):
		return drop.Version
	case errors.Is(err, wire.ErrType):
		return drop.Type
	default:
		return drop.Metadata
	}
}

// sessionDrop returns the reason for an error of a session.
func sessionDrop(err error) drop.Reason {
	switch {
	case errors.Is(err, session.ErrReplayed):
		return drop.Replayed
	case errors.Is(err, session.ErrPlain):
		return drop.NotSealed
	case errors.Is(err, session.ErrCounter):
		return drop.Counter
	default:
		return drop.Forged
	}
}

// flush writes the frames of the coalescer to the TAP. Frames that the TAP refuses are dropped; the others are written.
func (in *inbound) flush() error {
	frames := in.coalescer.Frames()
	in.engine.watchReceived(frames, in.session)
	if in.taken > 0 {
		in.engine.noteFrames(in.now)
		in.engine.toTAP.Count(in.taken, len(frames))
		in.taken = 0
	}
	refused, err := in.writer.write(frames)
	if refused > 0 {
		in.engine.drop(nil, drop.Device, refused)
	}
	in.coalescer.Reset()
	return err
}
