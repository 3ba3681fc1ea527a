package router

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"weft/internal/ether"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
)

// Sizes of the arena of a socket. Its buffers take any datagram whole, so that none is cut; of a buffer that never
// sees a long one, only the first page is ever in memory.
const (
	inDatagrams = 32
	inBuffer    = 64 << 10 // bytes
	inFrames    = 128      // given to the TAP at once: a buffer may hold many datagrams
)

// inbound carries frames from one socket to one TAP queue. All of it is owned by the goroutine of run.
type inbound struct {
	engine *Engine
	conn   underlay.Conn
	queue  tap.Queue

	batch  []underlay.Datagram
	frames []tap.Frame // for the TAP; they lie in the buffers of batch
	sum    tally
}

func newInbound(e *Engine, c underlay.Conn, q tap.Queue) *inbound {
	in := &inbound{
		engine: e,
		conn:   c,
		queue:  q,
		batch:  make([]underlay.Datagram, inDatagrams),
		frames: make([]tap.Frame, 0, inFrames),
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
	now, peers, longest := e.now(), e.peers.Load(), e.longest.Load()
	var from *hop
	var addr netip.AddrPort
	for i := range in.batch[:n] {
		d := &in.batch[i]
		if d.Addr != addr { // a run of datagrams mostly comes from one peer
			from, addr = peers.byAddr[d.Addr], d.Addr
		}
		if err := in.split(d, from, now, longest); err != nil {
			return err
		}
	}
	in.sum.flush()
	return in.flush() // before the buffers are used again
}

// split takes the datagrams that lie in d one by one.
func (in *inbound) split(d *underlay.Datagram, from *hop, now time.Time, longest int64) error {
	size := d.SegmentSize
	if size <= 0 {
		size = max(len(d.Buf), 1)
	}
	for at := 0; at == 0 || at < len(d.Buf); at += size {
		frame, reason := in.decode(d.Buf[at:min(at+size, len(d.Buf))], from, longest)
		if reason != 0 {
			in.engine.drop(from, reason, 1)
			continue
		}
		in.engine.learn(ether.Source(frame), from.ID, now)
		in.sum.add(&from.counters.receive, len(frame))
		if len(in.frames) == cap(in.frames) {
			if err := in.flush(); err != nil {
				return err
			}
		}
		in.frames = append(in.frames, tap.Frame{Data: frame})
	}
	return nil
}

// decode returns the frame in datagram, which from has sent, or why it must not go to the TAP. It goes nowhere else
// either: a frame from a peer is never sent to another one, or it would circle in the mesh.
func (in *inbound) decode(datagram []byte, from *hop, longest int64) (frame []byte, reason Drop) {
	switch {
	case from == nil:
		return nil, DropUnknownPeer
	case from.self:
		return nil, DropOwn
	}
	header, rest, err := wire.Parse(datagram)
	if err != nil {
		return nil, wireDrop(err)
	}
	if header.Type != wire.TypeFrame {
		return nil, DropType
	}
	if header.Session != 0 {
		return nil, DropSession
	}
	meta, frame, err := wire.ParseMeta(rest)
	if err != nil {
		return nil, wireDrop(err)
	}
	if !meta.IsPlain() {
		return nil, DropOffload
	}
	return frame, check(frame, longest)
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

// flush hands the frames to the TAP. One that it refuses costs itself only.
func (in *inbound) flush() error {
	if len(in.frames) == 0 {
		return nil
	}
	n, err := in.queue.WriteFrames(in.frames)
	if err != nil && !errors.Is(err, tap.ErrFrame) {
		return err
	}
	if lost := len(in.frames) - n; lost > 0 {
		in.engine.drop(nil, DropDevice, lost)
	}
	in.frames = in.frames[:0]
	return nil
}
