package router

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
)

// Sizes of the arena of a TAP queue. A batch ends when either is used up: 128 frames of an Ethernet MTU, or a few
// superframes; one frame of tap.MaxFrame must fit behind the others.
const (
	outFrames    = 128
	outArena     = 384 << 10 // bytes
	outDatagrams = 256       // given to a socket at once: floods make several of a frame
)

// outbound carries frames from one TAP queue to the peers. All of it is owned by the goroutine of run.
type outbound struct {
	engine *Engine
	queue  tap.Queue
	conn   underlay.Conn

	batch     *tap.Batch
	datagrams []underlay.Datagram // to be sent
	hops      []*hop              // hops[i] gets datagrams[i]
}

func newOutbound(e *Engine, q tap.Queue, c underlay.Conn) *outbound {
	return &outbound{
		engine:    e,
		queue:     q,
		conn:      c,
		batch:     tap.NewBatch(outArena, outFrames, wire.Headroom, 0),
		datagrams: make([]underlay.Datagram, 0, outDatagrams),
		hops:      make([]*hop, 0, outDatagrams),
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
	now, peers, longest := e.now(), e.peers.Load(), e.longest.Load()
	counter := e.counter.Add(uint64(n)) - uint64(n)
	for i := range o.batch.Frames() {
		if err := o.forward(i, counter+uint64(i), now, peers, longest); err != nil {
			return err
		}
	}
	return o.flush()
}

// forward queues frame i of the batch for every peer that it goes to. counter is the frame's own.
func (o *outbound) forward(i int, counter uint64, now time.Time, peers *snapshot, longest int64) error {
	e, frame := o.engine, o.batch.Frames()[i]
	if reason := check(frame.Data, longest); reason != 0 {
		e.drop(nil, reason, 1)
		return nil
	}
	if !frame.Offload.IsPlain() {
		e.drop(nil, DropOffload, 1)
		return nil
	}
	e.learn(ether.Source(frame.Data), peer.ID{}, now)
	to, reason := e.route(ether.Destination(frame.Data), now, peers)
	if reason != 0 {
		e.drop(to, reason, 1)
		return nil
	}
	datagram := o.encode(i, counter)
	if to != nil {
		return o.push(to, datagram)
	}
	for _, to := range peers.flood {
		if err := o.push(to, datagram); err != nil {
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
	case to == nil && len(peers.flood) == 0:
		return nil, DropNoPeer
	}
	return to, 0
}

// encode writes the wire header in front of frame i, into the headroom of the batch, and returns the datagram.
func (o *outbound) encode(i int, counter uint64) []byte {
	around := o.batch.Around(i)
	datagram := around[o.batch.Headroom()-wire.Headroom:]
	wire.Header{Type: wire.TypeFrame, Counter: counter}.Put(datagram)
	wire.Meta{}.Put(datagram[wire.HeaderLen:])
	return datagram
}

// push queues datagram for to. A flood queues one datagram for many: its bytes are shared.
func (o *outbound) push(to *hop, datagram []byte) error {
	if len(o.datagrams) == cap(o.datagrams) {
		if err := o.flush(); err != nil {
			return err
		}
	}
	o.datagrams = append(o.datagrams, underlay.Datagram{Addr: to.Addr, Buf: datagram})
	o.hops = append(o.hops, to)
	return nil
}

// flush sends what is queued and counts it.
func (o *outbound) flush() error {
	if len(o.datagrams) == 0 {
		return nil
	}
	_, err := o.conn.WriteBatch(o.datagrams)
	if errors.Is(err, net.ErrClosed) {
		return err
	}
	var sum tally
	for i := range o.datagrams {
		d, to := &o.datagrams[i], o.hops[i]
		if d.Err != nil {
			o.engine.drop(to, sendDrop(d.Err), 1)
			continue
		}
		sum.add(&to.counters.transmit, len(d.Buf)-wire.Headroom)
	}
	sum.flush()
	o.datagrams, o.hops = o.datagrams[:0], o.hops[:0]
	return nil
}

// sendDrop returns the reason that the error of a datagram stands for.
func sendDrop(err error) Drop {
	if errors.Is(err, syscall.EMSGSIZE) {
		return DropSendTooLong
	}
	return DropSend
}
