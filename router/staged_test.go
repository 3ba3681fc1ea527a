package router

import (
	"encoding/binary"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/simnet"
	"weft/router/session"
	"weft/router/underlay"
	"weft/router/wire"
	"weft/tap"
)

// recordingConn is a socket that records the frames of plain datagrams, and may do something for each batch.
type recordingConn struct {
	underlay.Conn
	onBatch func()

	mu     sync.Mutex
	frames [][]byte // guarded by mu
}

func (c *recordingConn) WriteBatch(batch []underlay.Datagram) (int, error) {
	c.mu.Lock()
	for _, d := range batch {
		frame := append([]byte(nil), d.Buf[wire.Headroom:]...)
		for _, piece := range d.More {
			frame = append(frame, piece...)
		}
		c.frames = append(c.frames, frame)
	}
	c.mu.Unlock()
	if c.onBatch != nil {
		c.onBatch()
	}
	return len(batch), nil
}

// drainTest is an idle node with one peer, that has no session yet although the remote has one.
type drainTest struct {
	*node
	view *peerView
	s    *session.Session
	conn *recordingConn
	enc  encoder // of installSession
}

// slowConn is a socket that sends with a delay.
type slowConn struct{ *recordingConn }

func (c slowConn) WriteBatch(batch []underlay.Datagram) (int, error) {
	time.Sleep(50 * time.Microsecond)
	return c.recordingConn.WriteBatch(batch)
}

func newDrainTest(t *testing.T) *drainTest {
	t.Helper()
	n := newNode(t, simnet.New(1), 0)
	n.SetPeers([]Peer{peerOf(1)})
	r := connectRemote(t, n, 1)
	d := &drainTest{node: n, view: n.peers.Load().byID[peerOf(1).ID], conn: &recordingConn{}}
	d.s = n.handshakes.node.Lookup(indexAtPeer(r.session))
	d.enc = newEncoder(n.Engine, slowConn{d.conn})
	n.dropSession(d.view, addrOf(1))
	return d
}

// sender is one TAP queue with a flow of its own.
func (d *drainTest) sender() *outbound {
	o := newOutbound(d.Engine, d.dev.Queues()[0], tapWriter{}, d.conn)
	o.begin()
	return o
}

// send sends frame number i of a flow, through all of unicast.
func (d *drainTest) send(t *testing.T, o *outbound, flow byte, i int) {
	data := frame(mac(2), mac(1), flow)
	binary.BigEndian.PutUint32(data[16:], uint32(i))
	f := outgoing{Frame: tap.Frame{Data: data}, longest: len(data), frames: 1, bytes: len(data)}
	w := copyOf(&f, time.Time{})
	if err := o.unicast(&w.outgoing, w.room, d.view); err != nil {
		t.Error(err)
	}
	if err := o.flush(); err != nil {
		t.Error(err)
	}
}

// awaitRoom waits until there is a session, or the queue of staged frames is well below its bound.
func (d *drainTest) awaitRoom() {
	for d.view.egress.Load().session == nil && d.stagedFrames() > maxStaged/2 {
		time.Sleep(20 * time.Microsecond)
	}
}

func (d *drainTest) stagedFrames() int {
	d.view.mu.Lock()
	defer d.view.mu.Unlock()
	return len(d.view.staged)
}

// checkOrder checks that of each flow the first count frames were sent, each once and in order.
func (d *drainTest) checkOrder(t *testing.T, flows, count int) {
	t.Helper()
	next := make([]int, flows)
	for _, f := range d.conn.frames {
		flow, number := int(f[14]), int(binary.BigEndian.Uint32(f[16:]))
		if number != next[flow] {
			t.Fatalf("flow %d: frame %d was sent, want %d", flow, number, next[flow])
		}
		next[flow]++
	}
	for flow, n := range next {
		if n != count {
			t.Errorf("flow %d: %d frames were sent, want %d", flow, n, count)
		}
	}
	if drops := d.Stats().Drops; len(drops) != 0 || d.stagedBytes.Load() != 0 {
		t.Errorf("drops %v, %d bytes staged", drops, d.stagedBytes.Load())
	}
}

// TestDrainKeepsOrder: while a session is installed, several senders go on. No frame is lost, and none overtakes
// another one of its flow. The race detector watches as well.
func TestDrainKeepsOrder(t *testing.T) {
	const flows, frames = 3, 400
	for range 20 {
		d := newDrainTest(t)
		var senders sync.WaitGroup
		for flow := range flows {
			senders.Go(func() {
				o := d.sender()
				for i := range frames {
					d.send(t, o, byte(flow), i)
					d.awaitRoom()
				}
			})
		}
		for d.stagedFrames() <= maxStaged/4 {
			time.Sleep(20 * time.Microsecond)
		}
		d.installSession(d.view, d.s, addrOf(1), &d.enc, d.now())
		senders.Wait()
		d.checkOrder(t, flows, frames)
	}
}

// TestDrainEnds: a sender that stages new frames during every round of draining does not keep it going without end, and
// waits for the last round.
func TestDrainEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDrainTest(t)
		o, sent := d.sender(), 0
		var waiting sync.WaitGroup
		rounds := 0
		d.conn.onBatch = func() {
			if d.view.egress.Load().session != nil {
				return
			}
			if rounds++; rounds <= maxDrainRounds {
				d.send(t, o, 0, sent)
				sent++
				return
			}
			i := sent
			sent++
			waiting.Go(func() { d.send(t, d.sender(), 0, i) })
			synctest.Wait()
			if d.view.egress.Load().session != nil || len(d.view.staged) != 0 {
				t.Error("the sender does not wait for the last round")
			}
		}
		d.send(t, o, 0, sent)
		sent++
		d.installSession(d.view, d.s, addrOf(1), &d.enc, d.now())
		waiting.Wait()
		if rounds != maxDrainRounds+1 {
			t.Errorf("%d rounds, want %d", rounds, maxDrainRounds+1)
		}
		d.checkOrder(t, 1, sent)
	})
}

// TestDrainHoldsNoLock: while staged frames are sent, the peer can move and leave, and the trusted prefixes can change.
func TestDrainHoldsNoLock(t *testing.T) {
	d := newDrainTest(t)
	d.send(t, d.sender(), 0, 0)
	moved := peerOf(1)
	moved.Addr = addrOf(7)
	d.conn.onBatch = func() {
		d.SetTrusted(nil)
		d.Stats()
		d.SetPeers([]Peer{moved})
	}
	d.installSession(d.view, d.s, addrOf(1), &d.enc, d.now())
	if out := d.view.egress.Load(); out.session != d.s || out.addr != addrOf(1) || len(d.endpointProbes) != 1 {
		t.Errorf("session %p to %s, want %p to where it was made, and a probe of the new address", out.session, out.addr, d.s)
	}
	d.checkOrder(t, 1, 1)
	d.SetPeers(nil)
	f := outgoing{Frame: tap.Frame{Data: frame(ether.Broadcast, mac(1), 'x')}, longest: 64, frames: 1, bytes: 64}
	d.dropSession(d.view, addrOf(1))
	if !d.stage(d.view, &f, d.now()) || len(d.view.staged) != 0 {
		t.Error("a frame is staged for a peer that has left")
	}
}
