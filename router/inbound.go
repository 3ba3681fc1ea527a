package router

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"weft/internal/ether"
	"weft/router/neighbor"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap/virtio"
)

// Sizes of the arena of a socket. Its buffers take any datagram whole, and whatever the kernel has joined of them, so
// that none is cut; of a buffer that never sees much, only the first page is ever in memory.
const (
	inDatagrams = 16
	inBuffer    = 64 << 10 // bytes
	inFrames    = 512      // given to the TAP at once
	inPieces    = 2048     // of which superframes are put together
)

// inbound carries frames from one socket to one TAP queue. All of it is owned by the goroutine of run.
type inbound struct {
	engine *Engine
	conn   underlay.Conn
	host   *host

	batch  []underlay.Datagram
	joiner *virtio.Coalescer // what it holds lies in the buffers of batch
	sum    tally
	taken  int // frames in joiner, those joined included

	forward forwarder // of what is for other nodes

	// Of the last datagram, as a run of them mostly has one sender: its session, nil for none, and who that is with.
	session *session.Session
	from    *hop
	// The source that was last learned.
	learned     ether.Addr
	learnedFrom *hop
}

func newInbound(e *Engine, c underlay.Conn, h *host) *inbound {
	in := &inbound{
		engine: e,
		conn:   c,
		host:   h,
		batch:  make([]underlay.Datagram, inDatagrams),
		joiner: virtio.NewCoalescer(e.device.Features(), inFrames, inPieces),

		forward: forwarder{engine: e, conn: c, packer: packer{least: forwardArena}},
	}
	arena := make([]byte, inDatagrams*inBuffer)
	for i := range in.batch {
		in.batch[i].Buf = arena[i*inBuffer : (i+1)*inBuffer : (i+1)*inBuffer]
	}
	return in
}

// run carries frames until socket or queue is closed.
func (in *inbound) run() error {
	for {
		if err := in.step(); err != nil {
			return fmt.Errorf("router: from the underlay: %w", err)
		}
	}
}

// step carries one batch.
func (in *inbound) step() error {
	n, err := in.conn.ReadBatch(in.batch)
	if err != nil {
		return err
	}
	e := in.engine
	e.receive.count(n)
	now, peers, longest := e.now(), e.peers.Load(), int(e.longest.Load())
	in.session, in.from, in.learnedFrom = nil, nil, nil
	for i := range in.batch[:n] {
		if isDetour(in.batch[i].Addr) {
			continue // nobody has such an address
		}
		if err := in.split(&in.batch[i], peers, now, longest); err != nil {
			return err
		}
	}
	in.sum.flush()
	if err := in.forward.flush(); err != nil {
		return err
	}
	return in.flush() // before the buffers are used again
}

// split takes the datagrams that lie in d one by one.
func (in *inbound) split(d *underlay.Datagram, peers *snapshot, now time.Time, longest int) error {
	size := d.SegmentSize
	if size <= 0 {
		size = max(len(d.Buf), 1)
	}
	for at := 0; at == 0 || at < len(d.Buf); at += size {
		if in.joiner.Full() {
			if err := in.flush(); err != nil {
				return err
			}
		}
		if from, reason := in.take(d.Buf[at:min(at+size, len(d.Buf))], d.Addr, peers, now, longest); reason != 0 {
			in.engine.drop(from, reason, 1)
		}
	}
	return nil
}

// take takes one datagram that came from addr, or says why it goes nowhere, and whose it is where that is certain.
func (in *inbound) take(datagram []byte, addr netip.AddrPort, peers *snapshot, now time.Time, longest int) (from *hop, reason Drop) {
	header, rest, err := wire.Parse(datagram)
	if err != nil {
		return nil, wireDrop(err)
	}
	switch {
	case header.Type.IsHandshake():
		return nil, in.engine.keys.deliver(datagram, addr)
	case header.Type == wire.TypeKnock:
		in.engine.knocks.heard(header.Counter)
		return nil, 0
	}
	s := in.sessionOf(header, peers)
	if s == nil {
		in.engine.keys.stray(header, addr)
		return nil, DropSession
	}
	from = in.from
	if from == nil {
		return nil, DropUnknownPeer // it has just left
	}
	if header.Type == wire.TypePlain {
		if !in.engine.trusts(addr.Addr()) {
			return from, DropNotSealed
		}
		if err := s.AcceptPlain(header); err != nil {
			return from, sessionDrop(err)
		}
		return from, in.frame(header, rest, from, now, longest)
	}
	body, newest, err := s.Open(header, datagram)
	if err != nil {
		return from, sessionDrop(err)
	}
	in.engine.opened(s, from, addr, newest, now)
	switch header.Type {
	case wire.TypeFrame:
		return from, in.frame(header, body, from, now, longest)
	case wire.TypeProbe:
		return from, in.probe(body, len(datagram), addr)
	case wire.TypeProbeReply:
		return from, in.probeReply(body, from, addr, now)
	case wire.TypeRelay:
		return in.relay(body, from, peers, now, longest)
	case wire.TypeControl:
		return from, in.control(body, from)
	default: // a keepalive has said all by coming
		return from, 0
	}
}

// sessionOf returns the session that a datagram is for, or nil, and sets from.
func (in *inbound) sessionOf(h wire.Header, peers *snapshot) *session.Session {
	if in.session == nil || in.session.Index() != h.Session {
		in.session, in.from = in.engine.keys.node.Lookup(h.Session), nil
		if in.session != nil {
			in.from = peers.byID[in.session.Peer()]
		}
	}
	return in.session
}

// frame hands the frame, or the slice of a superframe, that follows a wire header to the TAP. It goes nowhere else: a
// frame from a peer is never sent to another one, or it would circle in the mesh.
func (in *inbound) frame(header wire.Header, rest []byte, from *hop, now time.Time, longest int) (reason Drop) {
	meta, frame, err := wire.ParseMeta(rest)
	if err != nil {
		return wireDrop(err)
	}
	if reason := check(frame, len(frame), longest); reason != 0 {
		return reason
	}
	if meta.Kind == wire.KindNone {
		if neighbor.MayBe(frame) {
			in.engine.overhear(frame, from.ID, now)
		}
		err = in.joiner.AddFrame(offloadOf(meta), frame)
	} else {
		err = in.joiner.AddSegment(header.Session, sliceOf(header, meta), frame)
	}
	if err != nil {
		return DropOffload
	}
	if source := ether.Source(frame); from != in.learnedFrom || source != in.learned {
		in.engine.learn(source, from.ID, now)
		in.learned, in.learnedFrom = source, from
	}
	in.session.Use()
	in.taken++
	in.sum.add(&from.state.receive, 1, len(frame))
	return 0
}

// offloadOf returns what the kernel must be told of a frame that stands for itself.
func offloadOf(m wire.Meta) virtio.Header {
	if !m.Partial {
		return virtio.Header{}
	}
	return virtio.Header{
		Flags: virtio.FlagNeedsChecksum, CsumStart: uint16(m.CsumStart), CsumOffset: uint16(m.CsumOffset),
	}
}

// sliceOf returns the metadata of a slice in the words of virtio.
func sliceOf(h wire.Header, m wire.Meta) virtio.SegmentInfo {
	return virtio.SegmentInfo{
		Super: h.Counter - uint64(m.Index), Type: typeOf(m.Kind), ECN: m.ECN, HeaderLen: int(m.HeaderLen),
		CsumStart: int(m.CsumStart), CsumOffset: int(m.CsumOffset), SegmentSize: int(m.SegmentSize),
		Index: int(m.Index), Last: m.Last,
	}
}

// wireDrop returns the reason that an error of package wire stands for.
func wireDrop(err error) Drop {
	switch {
	case errors.Is(err, wire.ErrShort):
		return DropTruncated
	case errors.Is(err, wire.ErrVersion):
		return DropVersion
	case errors.Is(err, wire.ErrType):
		return DropType
	default:
		return DropMetadata
	}
}

// sessionDrop returns the reason that an error of a session stands for.
func sessionDrop(err error) Drop {
	switch {
	case errors.Is(err, session.ErrReplayed):
		return DropReplayed
	case errors.Is(err, session.ErrPlain):
		return DropNotSealed
	case errors.Is(err, session.ErrCounter):
		return DropCounter
	default:
		return DropForged
	}
}

// flush hands what the joiner holds to the TAP. A frame that it refuses costs itself only.
func (in *inbound) flush() error {
	frames := in.joiner.Frames()
	in.engine.captureReceived(frames, in.session)
	if in.taken > 0 {
		in.engine.toTAP.count(in.taken, len(frames))
		in.taken = 0
	}
	lost, err := in.host.write(frames)
	if lost > 0 {
		in.engine.drop(nil, DropDevice, lost)
	}
	in.joiner.Reset()
	return err
}
