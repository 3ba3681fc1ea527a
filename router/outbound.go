package router

import (
	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/drop"
	"weft/router/segmenter"
	"weft/router/toobig"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
)

// Sizes of the arena of a TAP queue. One frame of tap.MaxFrame must fit behind the others, so a batch ends with the
// superframe that exceeds 64 KiB, or with 128 small frames: while it is sent, the next one gathers in the kernel.
const (
	outFrames    = 128
	outArena     = 64<<10 + tap.MaxFrame + wire.Headroom + wire.TagLen // bytes
	outDatagrams = 256                                                 // passed to a socket at once: a flood makes several of a frame
)

// outbound carries frames from one TAP queue to the peers. It is owned by a loop.
type outbound struct {
	encoder
	queue   tap.Queue
	writer  tapWriter // for replies to the frames
	batch   *tap.Batch
	replies *toobig.Limiter // of replies to senders of frames that are too long

	// Of the present batch.

	peers   *snapshot
	flooded *floodList
	longest int // length of a frame in bytes
	frames  int // that the frames of the batch stand for, so far

	standing [tap.FlowQueues]standing
	slow     uint32 // flow queues of which the next bulk transfer in the batch shall slow down: bit i stands for flow queue i
}

func newOutbound(e *Engine, q tap.Queue, w tapWriter, c underlay.Conn) *outbound {
	o := &outbound{
		encoder: newEncoder(e, c),
		queue:   q,
		writer:  w,
		batch:   tap.NewBatch(outArena, outFrames, wire.Headroom, e.tailroom),
		replies: toobig.NewLimiter(),
	}
	for i := range o.standing {
		o.standing[i] = newStanding()
	}
	for _, c := range e.ports {
		o.ports = append(o.ports, newSocketBatch(c))
	}
	return o
}

// step carries one batch. It reports whether there may be more.
func (o *outbound) step() (more bool, err error) {
	o.batch.Reset()
	n, err := o.queue.ReadFrames(o.batch)
	if err != nil || n == 0 {
		o.noteStanding()
		return false, err
	}
	e := o.engine
	e.transmit.Count(n)
	o.begin()
	for i := range o.batch.Frames() {
		if err := o.forward(i); err != nil {
			return false, err
		}
	}
	e.fromTAP.Count(o.frames, n)
	return o.batch.IsFull(), o.flush()
}

// begin begins a batch.
func (o *outbound) begin() {
	e := o.engine
	o.now, o.peers, o.longest, o.frames = e.now(), e.peers.Load(), int(e.longest.Load()), 0
	o.flooded = o.peers.flooded.Load()
	o.noteStanding()
	e.noteFrames(o.now)
}

// forward queues frame i of the batch for every peer that it goes to.
func (o *outbound) forward(i int) error {
	e := o.engine
	f, reason := examine(o.batch.Frames()[i], o.longest)
	f.flowQueue = o.batch.FlowQueue(i)
	o.frames += f.frames
	if reason != 0 {
		e.drop(nil, reason, f.frames)
		return nil
	}
	e.learn(ether.Source(f.Data), peer.ID{}, o.now)
	to, reason := o.route(ether.Destination(f.Data))
	if reason != 0 {
		e.drop(to, reason, f.frames)
		return nil
	}
	room := o.batch.Around(i)[o.batch.Headroom()-wire.Headroom:]
	if to != nil {
		return o.unicast(&f, room, to)
	}
	if done, err := o.handleNeighbor(&f, room); done || err != nil {
		return err
	}
	e.floods.Add(1)
	for _, to := range o.flooded.peers {
		if err := o.flood(&f, room, to); err != nil {
			return err
		}
	}
	return nil
}

// unicast queues a frame for the one peer that it goes to.
func (o *outbound) unicast(f *outgoing, room []byte, to *peerView) error {
	out := o.egressFor(f, to)
	switch {
	case out == nil:
		return nil
	case f.longest > to.maxFrame(out):
		return o.handleOversize(f, to, out)
	case f.isSuper() && !segmenter.FitsWire(&f.layout):
		return o.carrySegments(f, to, out)
	}
	if f.layout.Segments >= bulkSegments {
		o.standing[f.flowQueue].to = to
		if bit := uint32(1) << f.flowQueue; o.slow&bit != 0 {
			o.slow &^= bit
			slowDown(f)
		}
	}
	return o.carry(f, room, to, out, false)
}

// flood queues a frame for one of the peers that it goes to.
func (o *outbound) flood(f *outgoing, room []byte, to *peerView) error {
	out := o.egressFor(f, to)
	switch {
	case out == nil:
		return nil
	case f.longest > to.maxFrame(out):
		o.engine.drop(to, drop.FrameExceedsPathMTU, f.frames) // its sender is not informed: a group has no path MTU
		return nil
	case f.isSuper() && !segmenter.FitsWire(&f.layout):
		return o.carrySegments(f, to, out)
	}
	return o.carry(f, room, to, out, true)
}

// egressFor returns the egress to a peer, or nil if there is no session: then f was staged.
func (o *outbound) egressFor(f *outgoing, to *peerView) *egress {
	for {
		out := to.egress.Load()
		if out.session != nil {
			return out
		}
		if o.engine.stage(to, f, o.now) {
			return nil
		}
	}
}

// route returns the peer to which a frame for dst goes, nil for all of them, or the reason to drop it. An entry for a
// peer that has left since is ignored: the address then counts as unknown.
func (o *outbound) route(dst ether.Addr) (to *peerView, reason drop.Reason) {
	if !dst.IsMulticast() {
		if where, known := o.engine.fdb.Lookup(dst, o.now); known {
			if where.IsZero() {
				return nil, drop.Local
			}
			to = o.peers.byID[where]
		}
	}
	switch {
	case to != nil && !to.reachable():
		return to, drop.NoRoute
	case to == nil && !dst.IsMulticast() && len(o.flooded.peers) == 0 && o.flooded.kernel == 0:
		return nil, drop.NoPeer // a frame to a group is lost to no peer where there is none
	}
	return to, 0
}
