package vxlan_test

import (
	"bytes"
	"context"
	"fmt"
	"sync/atomic"
	"testing"

	"weft/internal/ether"
	"weft/internal/nettest/labtest"
	"weft/router/carrier/carriertest"
	"weft/router/carrier/framewatch"
)

// TestSampleFrames: with N = 1 every frame is in the sample of both ends, with its length, peer and direction. With a larger N, which
// may come at any time, few are, and each counts N times.
func TestSampleFrames(t *testing.T) {
	a, b, _ := two(t)
	nodes := []*node{a, b}
	pod, source := carriertest.Socket(t, nodes[0].Pod.Space, "eth0"), nodes[0].PodMAC
	long := append(carriertest.Frame(ether.Broadcast, source, "long"), make([]byte, 1000)...)

	for i, n := range nodes {
		ctx, cancel := context.WithCancel(t.Context())
		var every, seen, wrong, heavy atomic.Int64
		every.Store(1)
		ended := make(chan error, 1)
		go func() {
			ended <- n.Do(func() error {
				return n.dev.SampleFrames(ctx, func() int { return int(every.Load()) }, func(s framewatch.Sampled) {
					if !bytes.HasPrefix(long, s.Frame) {
						return
					}
					seen.Add(1)
					if s.Length != len(long) || s.Segment != 0 || s.Sent != (i == 0) || i == 1 && s.Peer != nodes[0].ID {
						wrong.Add(1)
					}
					if s.Weight > 1 {
						heavy.Add(1)
					}
				})
			})
		}()
		send := func() {
			for range 10 {
				if err := pod.Send(long); err != nil {
					t.Fatal(err)
				}
			}
		}
		labtest.Until(t, patience, func() error { send(); return wantMore(seen.Load(), 1) }) // until the socket is open
		before := seen.Load()
		for range 10 {
			send()
		}
		labtest.Until(t, patience, func() error { return wantMore(seen.Load(), before+100) })
		if heavy.Load() > 0 {
			t.Errorf("node %d: frames have a weight with N = 1", i+1)
		}
		every.Store(4)
		labtest.Until(t, patience, func() error { send(); return wantMore(heavy.Load(), 10) })
		if wrong.Load() > 0 {
			t.Errorf("node %d: %d of %d frames are wrong", i+1, wrong.Load(), seen.Load())
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func wantMore(got, want int64) error {
	if got < want {
		return fmt.Errorf("%d of %d", got, want)
	}
	return nil
}
