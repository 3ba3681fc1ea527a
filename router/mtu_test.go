package router

import (
	"bytes"
	"testing"
	"testing/synctest"

	"weft/internal/ether"
	"weft/router/drop"
)

// TestSetMTU: a limit below the device's MTU holds for packets to peers at once, and goes away at once where nothing was measured.
func TestSetMTU(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, nodes := run(t, 2)
		deliver(t, nodes, 1, frame(ether.Broadcast, mac(2), 'a'))
		long := append(frame(mac(2), mac(1), 'b'), bytes.Repeat([]byte{'b'}, 1100)...)
		fits := long[:ether.HeaderLen+1000]
		if got := deliver(t, nodes, 0, long); len(got[1]) == 0 {
			t.Fatalf("%v, want the frame to arrive", got)
		}
		whole := nodes[0].Stats().Peers[0].MTU
		if err := nodes[0].SetMTU(1000); err != nil {
			t.Fatal(err)
		}
		if got := deliver(t, nodes, 0, long); len(got[1]) != 0 {
			t.Error("a frame above the limit arrived")
		}
		if got := deliver(t, nodes, 0, fits); len(got[1]) == 0 {
			t.Error("a frame of the limit did not arrive")
		}
		s := nodes[0].Stats().Peers[0]
		if s.MTU != 1000 || s.Drops[drop.FrameExceedsPathMTU] != 1 {
			t.Errorf("MTU %d, drops %v", s.MTU, s.Drops)
		}
		if err := nodes[0].SetMTU(0); err != nil {
			t.Fatal(err)
		}
		if got := nodes[0].Stats().Peers[0].MTU; got != whole {
			t.Errorf("MTU %d, want %d", got, whole)
		}
	})
}
