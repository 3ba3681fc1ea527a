package router

import (
	"bytes"
	"errors"
	"testing"
	"testing/synctest"

	"weft/internal/capture/filter"
	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/capture"
	"weft/router/session"
	"weft/router/watch"
	"weft/tap/taptest"
)

// taken returns the frames that c has captured.
func taken(c *capture.Capture) (all []capture.Frame) {
	for {
		select {
		case f := <-c.Frames():
			c.Taken(f)
			all = append(all, f)
		default:
			return all
		}
	}
}

// TestCapture: captures at both ends of a sealed session see a frame as the pods do, by peer and direction, until they
// are closed.
func TestCapture(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 2)
		sent, stopSent, err := nodes[0].Capture(peer.ID{}, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		received, stopReceived, err := nodes[1].Capture(nodes[0].peer.ID, func(frame []byte, _ int) bool { return frame[14] != 'b' }, 20)
		if err != nil {
			t.Fatal(err)
		}
		other, stopOther, err := nodes[1].Capture(peer.ID{1}, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'a'))
		deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'b'))
		at0, at1 := taken(sent), taken(received)
		if len(at0) != 2 || !at0[0].Sent || at0[0].Peer != nodes[1].peer.ID || at0[0].Session == 0 ||
			!bytes.Equal(at0[0].Data, frame(ether.Broadcast, mac(1), 'a')) {
			t.Errorf("at the sender: %+v", at0)
		}
		if len(at1) != 1 || at1[0].Sent || at1[0].Peer != nodes[0].peer.ID || at1[0].Session == 0 ||
			at1[0].Length != 64 || !bytes.Equal(at1[0].Data, frame(ether.Broadcast, mac(1), 'a')[:20]) {
			t.Errorf("at the receiver: %+v", at1)
		}
		if got := taken(other); len(got) != 0 {
			t.Errorf("of another peer: %+v", got)
		}
		for _, stop := range []func(){stopSent, stopReceived, stopOther, stopOther} {
			stop()
		}
		deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'c'))
		if n := len(taken(sent)) + len(taken(received)); n != 0 || nodes[0].watchers.Load() != nil || nodes[1].watchers.Load() != nil {
			t.Errorf("%d frames after the end", n)
		}
	})
}

// TestCaptureSuperframe: the receiver captures a superframe as it is passed to the pod, and single frames with complete
// checksums.
func TestCaptureSuperframe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := runOf(t, taptest.Config{MTU: 1438, Features: allFeatures}, taptest.Config{MTU: 1438, Features: allFeatures})
		c, stop, err := nodes[1].Capture(peer.ID{}, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer stop()
		f := superframe(2, 1, 30000, 1384)
		nodes[0].dev.InjectQueue(0, f)
		nodes[0].dev.InjectQueue(0, superframe(2, 1, 100, 1384))
		synctest.Wait()
		var bytesSeen int
		for _, got := range taken(c) {
			bytesSeen += got.Length - 14 - 20 - 20
			if got.Length != len(got.Data) || got.Peer != nodes[0].peer.ID {
				t.Errorf("%d of %d bytes of a frame of %s", len(got.Data), got.Length, got.Peer)
			}
		}
		if bytesSeen < 30000 || bytesSeen > 30200 {
			t.Errorf("%d bytes of payload seen", bytesSeen)
		}
	})
}

// TestCaptureBounds: if captured frames are not taken, traffic goes on and the frames that were not captured are
// counted; captures above the bound are refused.
func TestCaptureBounds(t *testing.T) {
	h := newHotPath(t, 1, session.Secret{Key: [session.KeyLen]byte{1}})
	c, _, err := h.Capture(peer.ID{}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		h.transmit(t, h.unicast)
	}
	if want := uint64(20*outFrames - cap(c.Frames())); c.Lost() != want {
		t.Errorf("%d lost, want %d", c.Lost(), want)
	}
	if p := h.Stats().Peers[0]; p.TxFrames != 20*outFrames {
		t.Errorf("%d frames sent, want %d", p.TxFrames, 20*outFrames)
	}
	large, _, err := h.Capture(peer.ID{}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	for range 400 {
		h.transmitSuper(t)
	}
	if n := len(large.Frames()); large.Lost() == 0 || n*len(h.super.Data) > 16<<20 {
		t.Errorf("%d superframes wait, %d lost", n, large.Lost())
	}
	for range watch.Max - 2 {
		if _, _, err := h.Capture(peer.ID{}, nil, 0); err != nil {
			t.Fatal(err)
		}
	}
	if _, _, err := h.Capture(peer.ID{}, nil, 0); !errors.Is(err, watch.ErrCaptures) {
		t.Errorf("one too many: %v", err)
	}
}

// BenchmarkCapture measures the cost of a capture: without one, with one that selects nothing, with one that selects
// all.
func BenchmarkCapture(b *testing.B) {
	for _, c := range []struct {
		name  string
		match func(*testing.B) func([]byte, int) bool
	}{
		{"none", nil},
		{"filtered", func(b *testing.B) func([]byte, int) bool {
			f, err := filter.Parse("tcp port 80 and host 10.32.0.1")
			if err != nil {
				b.Fatal(err)
			}
			return f.Match
		}},
		{"all", func(*testing.B) func([]byte, int) bool { return nil }},
	} {
		b.Run(c.name, func(b *testing.B) {
			h := newHotPath(b, 1, modes["sealed"]...)
			if c.match != nil {
				frames, _, err := h.Capture(peer.ID{}, c.match(b), 0)
				if err != nil {
					b.Fatal(err)
				}
				stop := make(chan struct{})
				defer close(stop)
				go func() {
					for {
						select {
						case f := <-frames.Frames():
							frames.Taken(f)
						case <-stop:
							return
						}
					}
				}()
			}
			b.SetBytes(outFrames * int64(len(h.unicast)))
			for b.Loop() {
				h.transmit(b, h.unicast)
			}
		})
	}
}
