package datapath

import (
	"testing"

	"weft/internal/capture/pcapng"
	"weft/router/capture"
)

// TestDirectionWithoutPeer: a frame of a peer that the router does not know is described without a peer.
func TestDirectionWithoutPeer(t *testing.T) {
	c := &Capture{}
	for _, x := range []struct {
		frame capture.Frame
		want  pcapng.Path
	}{
		{capture.Frame{Session: 10}, pcapng.Path{Session: "session 0000000a"}},
		{capture.Frame{Sent: true}, pcapng.Path{Sent: true}},
	} {
		if got := c.direction(x.frame); got != x.want {
			t.Errorf("%+v is %+v, want %+v", x.frame, got, x.want)
		}
	}
}
