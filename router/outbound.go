package router

import (
	"fmt"
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
	outArena     = 64<<10 + tap.MaxFrame + wire.Headroom + wire.TagLen // bytes
	outDatagrams = 256                                                 // given to a socket at once: floods make several of a frame
)

// outbound carries frames from one TAP queue to the peers. All of it is owned by the goroutine of run.
type outbound struct {
	encoder
	queue   tap.Queue
	host    *host // where answers to the frames go
	batch   *tap.Batch
	replies *toobig.Limiter // to senders of what is too long
	stood   int             // frames that those of the batch stand for, so far
}

func newOutbound(e *Engine, q tap.Queue, h *host, c underlay.Conn) *outbound {
	return &outbound{
		encoder: newEncoder(e, c),
		queue:   q,
		host:    h,
		batch:   tap.NewBatch(outArena, outFrames, wire.Headroom, e.tailroom),
		replies: toobig.NewLimiter(),
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
	o.stood = 0
	for i := range o.batch.Frames() {
		if err := o.forward(i, now, peers, longest); err != nil {
			return err
		}
	}
	e.fromTAP.count(o.stood, n)
	return o.flush()
}

// forward queues frame i of the batch for every peer that it goes to.
func (o *outbound) forward(i int, now time.Time, peers *snapshot, longest int) error {
	e := o.engine
	f, reason := examine(o.batch.Frames()[i], longest)
	o.stood += f.frames
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
	room := o.batch.Around(i)[o.batch.Headroom()-wire.Headroom:]
	if to != nil {
		return o.unicast(&f, room, to, now)
	}
	if done, err := o.ask(&f, room, peers, now); done || err != nil {
		return err
	}
	e.floods.Add(1)
	for _, to := range peers.flood {
		if err := o.flood(&f, room, to, now); err != nil {
			return err
		}
	}
	return nil
}

// unicast queues a frame for the one peer that it goes to.
func (o *outbound) unicast(f *outgoing, room []byte, to *hop, now time.Time) error {
	l := o.laneFor(f, to, now)
	switch {
	case l == nil:
		return nil
	case f.longest > to.maxFrame(l):
		return o.oversize(f, to, l, now)
	case f.isSuper() && !fitsWire(&f.layout):
		return o.forwardCut(f, to, l)
	}
	return o.carry(f, room, to, l, false)
}

// flood queues a frame for one of the peers that it goes to.
func (o *outbound) flood(f *outgoing, room []byte, to *hop, now time.Time) error {
	l := o.laneFor(f, to, now)
	switch {
	case l == nil:
		return nil
	case f.longest > to.maxFrame(l):
		o.engine.drop(to, DropTooBig, f.frames) // nobody is told: a group has no path
		return nil
	case f.isSuper() && !fitsWire(&f.layout):
		return o.forwardCut(f, to, l)
	}
	return o.carry(f, room, to, l, true)
}

// laneFor returns the lane to a peer, or nil where f has to wait for one.
func (o *outbound) laneFor(f *outgoing, to *hop, now time.Time) *lane {
	for {
		l := to.state.crossing.lane.Load()
		if l.session != nil {
			return l
		}
		if o.engine.wait(to, f, now) {
			return nil
		}
	}
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
	case to != nil && !to.reached():
		return to, DropNoRoute
	case to == nil && len(peers.flood) == 0 && peers.kernel == 0:
		return nil, DropNoPeer
	}
	return to, 0
}
