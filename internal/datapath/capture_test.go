package datapath

import (
	"testing"

	"weft/internal/capture/pcapng"
	"weft/router"
)

// TestDirectionWithoutPeer: a frame of a peer that the router does not know is described without a peer.
func TestDirectionWithoutPeer(t *testing.T) {
	c := &Capture{}
	for _, x := range []struct {
		frame router.Captured
		want  pcapng.Path
	}{
		{router.Captured{Session: 10}, pcapng.Path{Session: "session 0000000a"}},
		{router.Captured{Sent: true}, pcapng.Path{Sent: true}},
	} {
		if got := c.direction(x.frame); got != x.want {
			t.Errorf("%+v is %+v, want %+v", x.frame, got, x.want)
		}
	}
}
