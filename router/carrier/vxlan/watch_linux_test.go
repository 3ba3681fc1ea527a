package vxlan_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"weft/internal/ether"
	"weft/internal/nettest/labtest"
	"weft/router/carrier/carriertest"
	"weft/router/carrier/framewatch"
)

// TestWatch: Watch reports a frame as the pod sent it, at both ends, with the tag that the kernel removed.
func TestWatch(t *testing.T) {
	a, b, _ := two(t)
	nodes := []*node{a, b}

	pod, source := carriertest.Socket(t, nodes[0].Pod.Space, "eth0"), nodes[0].PodMAC
	plain := carriertest.Frame(ether.Broadcast, source, "plain")
	tag := carriertest.Frame(ether.Broadcast, source, "tagged")
	tag = bytes.Join([][]byte{tag[:12], {0x81, 0, 0x60, 7}, tag[12:]}, nil)
	type seen struct{ plain, tagged bool }
	for i, n := range nodes {
		ctx, cancel := context.WithCancel(t.Context())
		watched, ended := make(chan framewatch.Watched, 1024), make(chan error, 1)
		go func() {
			ended <- n.Do(func() error {
				return n.dev.Watch(ctx, func(w framewatch.Watched) {
					w.Frame = bytes.Clone(w.Frame)
					select {
					case watched <- w:
					default:
					}
				})
			})
		}()
		var got seen
		labtest.Until(t, patience, func() error {
			for _, f := range [][]byte{plain, tag} {
				if err := pod.Send(f); err != nil {
					t.Fatal(err)
				}
			}
			for len(watched) > 0 {
				w := <-watched
				if i == 1 && w.Peer != nodes[0].ID {
					continue
				}
				got.plain = got.plain || bytes.Equal(w.Frame, plain) && w.Sent == (i == 0)
				got.tagged = got.tagged || bytes.Equal(w.Frame, tag) && w.Sent == (i == 0)
			}
			if got != (seen{true, true}) {
				return fmt.Errorf("node %d has seen %+v", i+1, got)
			}
			return nil
		})
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}
