package router

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/ether"
	"weft/internal/peer"
	"weft/router/flows"
	"weft/router/session"
	"weft/router/watch"
	"weft/tap/taptest"
)

// TestSampleFlows: samplers at both ends count exactly what the counters of the router do while there is little traffic, superframes by
// their segments, until they are stopped.
func TestSampleFlows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := runOf(t, taptest.Config{MTU: 1438, Features: allFeatures}, taptest.Config{MTU: 1438, Features: allFeatures})
		var samplers []*flows.Sampler
		var stops []func()
		for _, n := range nodes {
			s := flows.NewSampler()
			stop, err := n.SampleFlows(s)
			if err != nil {
				t.Fatal(err)
			}
			samplers, stops = append(samplers, s), append(stops, stop)
		}
		send := func() {
			nodes[0].dev.InjectQueue(0, superframe(2, 1, 30000, 1384))
			nodes[0].dev.InjectQueue(0, superframe(2, 1, 100, 1384))
			deliver(t, nodes, 0, frame(ether.Broadcast, mac(1), 'a'))
			synctest.Wait()
		}
		send()
		for i, s := range samplers {
			var sum flows.Traffic
			for _, f := range s.Take(time.Second).Flows {
				if f.Peer != nodes[1-i].peer.ID || f.Sent != (i == 0) || f.Path != flows.Userspace {
					t.Errorf("node %d: %+v", i, f.Key)
				}
				sum.Frames += f.Frames
				sum.Bytes += f.Bytes
			}
			counted := nodes[i].Stats().Peers[0]
			want := flows.Traffic{Frames: counted.TxFrames + counted.RxFrames, Bytes: counted.TxBytes + counted.RxBytes}
			if sum != want || sum.Frames < 23 {
				t.Errorf("node %d: %+v, the router counted %+v", i, sum, want)
			}
			stops[i]()
		}
		send()
		for i, s := range samplers {
			if n := len(s.Take(time.Second).Flows); n != 0 || nodes[i].watchers.Load() != nil {
				t.Errorf("node %d: %d flows after the end", i, n)
			}
		}
	})
}

// TestSampleFlowsBounds: samplers and captures do not end each other, and samplers above the bound are refused.
func TestSampleFlowsBounds(t *testing.T) {
	h := newHotPath(t, 1, session.Secret{Key: [session.KeyLen]byte{1}})
	c, end, err := h.Capture(peer.ID{}, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var stop func()
	for range watch.Max {
		if stop, err = h.SampleFlows(flows.NewSampler()); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := h.SampleFlows(flows.NewSampler()); !errors.Is(err, watch.ErrSamplers) {
		t.Errorf("one too many: %v", err)
	}
	stop()
	h.transmit(t, h.unicast)
	if n := len(c.Frames()); n != outFrames {
		t.Errorf("%d frames captured beside samplers", n)
	}
	end()
	if w := h.watchers.Load(); w == nil || w.Captures() {
		t.Errorf("%+v after the end of the capture", w)
	}
	if _, err := h.SampleFlows(flows.NewSampler()); err != nil {
		t.Errorf("after the end of one: %v", err)
	}
}

// TestNoAllocationWhileSampled: a sampled frame of a known flow costs no memory.
func TestNoAllocationWhileSampled(t *testing.T) {
	h := newHotPath(t, 5, modes["sealed"]...)
	if _, err := h.SampleFlows(flows.NewSampler()); err != nil {
		t.Fatal(err)
	}
	h.receiveFrom(h.fromPeer)
	for name, f := range map[string]func(){
		"unicast":    func() { h.transmit(t, h.unicast) },
		"superframe": func() { h.transmitSuper(t) },
		"receive":    func() { h.receive(t) },
	} {
		f() // makes the flow known
		if n := testing.AllocsPerRun(50, f); n != 0 {
			t.Errorf("%s: %v allocations a batch", name, n)
		}
	}
}

// BenchmarkSampleFlows measures the cost of a sampler: without one, and with one.
func BenchmarkSampleFlows(b *testing.B) {
	for _, name := range []string{"none", "sampled"} {
		b.Run(name, func(b *testing.B) {
			h := newHotPath(b, 1, modes["sealed"]...)
			h.now = time.Now
			if name == "sampled" {
				if _, err := h.SampleFlows(flows.NewSampler()); err != nil {
					b.Fatal(err)
				}
			}
			b.SetBytes(outFrames * int64(len(h.unicast)))
			for b.Loop() {
				h.transmit(b, h.unicast)
			}
		})
	}
}
