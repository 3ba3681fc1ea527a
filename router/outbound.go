package router

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/toobig"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
)

// Sizes of the arena of a TAP queue. One frame of tap.MaxFrame must fit behind the others, so that a batch ends with the
// superframe that passes 64 KiB, or with 128 small frames: while it is sent, the next one gathers in the kernel.
const (
	outFrames    = 128
	outArena     = 64<<10 + tap.MaxFrame + wire.Headroom // bytes
	outDatagrams = 256                                   // given to a socket at once: floods make several of a frame
)

// outbound carries frames from one TAP queue to the peers. All of it is owned by the goroutine of run.
type outbound struct {
	engine *Engine
	queue  tap.Queue
	host   *host // where answers to the frames go
	conn   underlay.Conn

	batch     *tap.Batch
	cut       slicer
	replies   *toobig.Limiter     // to senders of what is too long
	datagrams []underlay.Datagram // to be sent
	sends     []send              // sends[i] is about datagrams[i]
}

// send is what is counted of a datagram, or of a run of them, once it has left.
type send struct {
	to            *hop
	frames, bytes int
}

func newOutbound(e *Engine, q tap.Queue, h *host, c underlay.Conn) *outbound {
	return &outbound{
		engine:    e,
		queue:     q,
		host:      h,
		conn:      c,
		batch:     tap.NewBatch(outArena, outFrames, wire.Headroom, 0),
		cut:       newSlicer(),
		replies:   toobig.NewLimiter(),
		datagrams: make([]underlay.Datagram, 0, outDatagrams),
		sends:     make([]send, 0, outDatagrams),
	}
}

// run carries frames until queue or socket is closed.
func (o *outbound) run() error {
	for {
		if err := o.step(); err != nil {
			return fmt.Errorf("router: from the TAP: %w", err)
		}
	}
}

// step carries one batch.
func (o *outbound) step() error {
	o.batch.Reset()
	n, err := o.queue.ReadFrames(o.batch)
	if err != nil {
		return err
	}
	e := o.engine
	e.transmit.count(n)
	now, peers, longest := e.now(), e.peers.Load(), int(e.longest.Load())
	for i := range o.batch.Frames() {
		if err := o.forward(i, now, peers, longest); err != nil {
			return err
		}
	}
	return o.flush()
}

// forward queues frame i of the batch for every peer that it goes to.
func (o *outbound) forward(i int, now time.Time, peers *snapshot, longest int) error {
	e := o.engine
	f, reason := examine(o.batch.Frames()[i], longest)
	if reason != 0 {
		e.drop(nil, reason, f.frames)
		return nil
	}
	e.learn(ether.Source(f.Data), peer.ID{}, now)
	to, reason := e.route(ether.Destination(f.Data), now, peers)
	if reason != 0 {
		e.drop(to, reason, f.frames)
		return nil
	}
	if to != nil && f.longest > to.maxFrame() {
		return o.oversize(&f, to, now)
	}
	if f.isSuper() && !fitsWire(&f.layout) {
		return o.forwardCut(&f, to, peers)
	}
	d, err := o.encode(i, &f)
	if err != nil {
		return err
	}
	if to != nil {
		return o.push(d, send{to, f.frames, f.bytes})
	}
	for _, to := range peers.flood {
		if f.longest > to.maxFrame() {
			e.drop(to, DropTooBig, f.frames) // nobody is told: a group has no path
			continue
		}
		if err := o.push(d, send{to, f.frames, f.bytes}); err != nil {
			return err
		}
	}
	return nil
}

// route returns the hop to which a frame for dst goes, nil for all of them, or why it goes to none. What is known of a
// peer that has left since is passed over: the address is as good as unknown.
func (e *Engine) route(dst ether.Addr, now time.Time, peers *snapshot) (to *hop, reason Drop) {
	if !dst.IsMulticast() {
		if where, known := e.fdb.Lookup(dst, now); known {
			if where.IsZero() {
				return nil, DropLocal
			}
			to = peers.byID[where]
		}
	}
	switch {
	case to != nil && !to.direct():
		return to, DropNoRoute
	case to == nil && len(peers.flood) == 0 && peers.kernel == 0:
		return nil, DropNoPeer
	}
	return to, 0
}

// encode returns the datagrams of frame i, without an address: one, with its header in the headroom of the batch, or
// one a slice of a superframe.
func (o *outbound) encode(i int, f *outgoing) (underlay.Datagram, error) {
	counter := o.engine.counters(f.frames)
	if f.isSuper() {
		if !o.cut.fits(&f.layout) {
			if err := o.flush(); err != nil { // what is queued lies in the slicer's memory
				return underlay.Datagram{}, err
			}
		}
		return o.cut.slice(f, counter), nil
	}
	buf := o.batch.Around(i)[o.batch.Headroom()-wire.Headroom:]
	wire.Header{Type: wire.TypeFrame, Counter: counter}.Put(buf)
	f.meta().Put(buf[wire.HeaderLen:])
	return underlay.Datagram{Buf: buf}, nil
}

// push queues d for the peer of s. A flood queues one d for many: its bytes are shared.
func (o *outbound) push(d underlay.Datagram, s send) error {
	if len(o.datagrams) == cap(o.datagrams) {
		if err := o.send(); err != nil {
			return err
		}
	}
	d.Addr = s.to.Addr
	o.datagrams = append(o.datagrams, d)
	o.sends = append(o.sends, s)
	return nil
}

// flush sends what is queued; nothing lies in the slicer's memory any more then.
func (o *outbound) flush() error {
	err := o.send()
	o.cut.reset()
	return err
}

// send sends what is queued and counts it.
func (o *outbound) send() error {
	if len(o.datagrams) == 0 {
		return nil
	}
	_, err := o.conn.WriteBatch(o.datagrams)
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	var sum tally
	for i := range o.datagrams {
		s := &o.sends[i]
		if err := o.datagrams[i].Err; err != nil {
			o.engine.drop(s.to, o.sendDrop(err, &o.datagrams[i], s), s.frames)
			continue
		}
		sum.add(&s.to.state.transmit, s.frames, s.bytes)
	}
	sum.flush()
	o.datagrams, o.sends = o.datagrams[:0], o.sends[:0]
	return nil
}

// sendDrop returns the reason that the error of a datagram stands for. That it is too long for this host's own link is
// news for the prober of the path.
func (o *outbound) sendDrop(err error, d *underlay.Datagram, s *send) Drop {
	if !errors.Is(err, syscall.EMSGSIZE) {
		return DropSend
	}
	size := d.SegmentSize
	if size == 0 {
		size = len(d.Buf)
	}
	s.to.state.path.tooBig(size, 0, o.engine.now())
	return DropSendTooLong
}
