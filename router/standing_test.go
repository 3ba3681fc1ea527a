package router

import (
	"fmt"
	"testing"
	"time"

	"weft/internal/simnet"
	"weft/router/drop"
	"weft/router/ecn"
	"weft/router/relay"
	"weft/router/underlay"
	"weft/tap"
	"weft/tap/taptest"
)

// countingConn counts the datagrams that it sends, and those of them that are marked.
type countingConn struct {
	underlay.Conn
	datagrams int
	marked    int
}

func (c *countingConn) WriteBatch(batch []underlay.Datagram) (int, error) {
	for _, d := range batch {
		n := 1
		if d.SegmentSize > 0 {
			n = (relay.Length(&d) + d.SegmentSize - 1) / d.SegmentSize
		}
		c.datagrams += n
		if d.TOS&ecn.Mask == ecn.CE {
			c.marked += n
		}
	}
	return len(batch), nil
}

// drain carries frames until the queue is empty.
func drain(t *testing.T, o *outbound) {
	t.Helper()
	for more := true; more; {
		var err error
		if more, err = o.step(); err != nil {
			t.Fatal(err)
		}
	}
}

// TestStandingQueue: while the queue of the TAP is never empty for longer than an interval, a superframe now and then is marked, or sent
// without its last segment if its flow does not understand marks. Short superframes and single frames are sent whole.
func TestStandingQueue(t *testing.T) {
	super := func(payload int, tos uint8) tap.Frame {
		f := superframe(2, 1, payload, 1350)
		setTOS(f.Data, tos)
		return f
	}
	for _, tt := range []struct {
		name            string
		frame           tap.Frame
		pause           bool // the queue is empty now and then
		dropped, marked bool
	}{
		{"drop", super(40*1350+7, ecn.NotECT), false, true, false},
		{"mark", super(40*1350+7, ecn.ECT0), false, false, true},
		{"burst", super(40*1350+7, ecn.NotECT), true, false, false},
		{"short superframes", super((bulkSegments-2)*1350+7, ecn.NotECT), false, false, false},
		{"single frames", tap.Frame{Data: withTOS(ecn.NotECT)}, false, false, false},
	} {
		for mode, secrets := range modes {
			t.Run(tt.name+", "+mode, func(t *testing.T) {
				n := newNodeOf(t, simnet.New(1), 0, taptest.Config{MTU: 1438, Features: allFeatures}, secrets...)
				now := time.Unix(1_700_000_000, 0)
				n.now = func() time.Time { return now }
				n.SetPeers([]Peer{peerOf(1)})
				connectRemote(t, n, 1, secrets...)
				n.learn(mac(2), peerOf(1).ID, now)
				conn := &countingConn{Conn: n.conn}
				o := newOutbound(n.Engine, n.dev.Queues()[0], tapWriter{}, conn)
				sent, each := 0, 1
				if tt.frame.Offload.GSOType != 0 {
					f, reason := examine(tt.frame, 1438+18)
					if reason != 0 {
						t.Fatal(reason)
					}
					each = f.frames
				}
				for i := range 400 {
					now = now.Add(time.Millisecond)
					n.learn(mac(2), peerOf(1).ID, now)
					for range 2 * outFrames { // more than a batch
						if n.dev.InjectQueue(0, tt.frame) {
							sent += each
						}
					}
					if more, err := o.step(); err != nil || !more {
						t.Fatalf("the batch is not full: %v", err)
					}
					if tt.pause && i%50 == 49 {
						drain(t, o)
					}
				}
				drain(t, o)
				stats := n.Stats()
				dropped := int(stats.Drops[drop.Queue])
				if conn.datagrams+dropped != sent {
					t.Errorf("%d datagrams of %d sent, %d dropped", conn.datagrams, sent, dropped)
				}
				if tx := int(stats.Peers[0].TxFrames); tx != conn.datagrams {
					t.Errorf("%d frames counted, %d sent", tx, conn.datagrams)
				}
				if tt.dropped != (dropped > 0) || tt.marked != (conn.marked > 0) || dropped > 20 || conn.marked > 20*each {
					t.Errorf("%d dropped and %d marked of %d", dropped, conn.marked, sent)
				}
			})
		}
	}
}

// flowQueues is a queue of which two flow queues always have a frame, and one of them more.
type flowQueues struct {
	tap.Queue
	frames map[int]tap.Frame // by flow queue
	full   int
}

func (q flowQueues) ReadFrames(b *tap.Batch) (int, error) {
	for flow, f := range q.frames {
		b.Append(flow, f.Offload, copy(b.Space(0, tap.MaxFrame), f.Data))
	}
	b.SetWaiting(1 << q.full)
	return len(q.frames), nil
}

// TestStandingFlowQueue: only the senders of a flow queue that is never empty slow down.
func TestStandingFlowQueue(t *testing.T) {
	const loses, marks = 1, 6 // flow queues: what slows down their senders
	for _, full := range []int{loses, marks} {
		t.Run(fmt.Sprint(full), func(t *testing.T) {
			n := newNodeOf(t, simnet.New(1), 0, taptest.Config{MTU: 1438, Features: allFeatures})
			now := time.Unix(1_700_000_000, 0)
			n.now = func() time.Time { return now }
			n.SetPeers([]Peer{peerOf(1)})
			connectRemote(t, n, 1)
			conn := &countingConn{Conn: n.conn}
			q := flowQueues{frames: map[int]tap.Frame{}, full: full}
			for flow, tos := range map[int]uint8{loses: ecn.NotECT, marks: ecn.ECT0} {
				f := superframe(2, 1, 40*1350+7, 1350)
				setTOS(f.Data, tos)
				q.frames[flow] = f
			}
			o := newOutbound(n.Engine, q, tapWriter{}, conn)
			for range 400 {
				now = now.Add(time.Millisecond)
				n.learn(mac(2), peerOf(1).ID, now)
				if _, err := o.step(); err != nil {
					t.Fatal(err)
				}
			}
			dropped := n.Stats().Drops[drop.Queue]
			if (dropped > 0) != (full == loses) || (conn.marked > 0) != (full == marks) {
				t.Errorf("%d dropped and %d marked", dropped, conn.marked)
			}
		})
	}
}
