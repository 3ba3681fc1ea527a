package daemon

import (
	"testing"

	"weft/internal/capture/pcapng"
	"weft/router"
)

// TestWayOfNobody: a frame whose peer the router does not know is said to be nobody's.
func TestWayOfNobody(t *testing.T) {
	c := &capture{}
	for _, x := range []struct {
		frame router.Captured
		want  pcapng.Path
	}{
		{router.Captured{Session: 10}, pcapng.Path{Session: "session 0000000a"}},
		{router.Captured{Sent: true}, pcapng.Path{Sent: true}},
	} {
		if got := c.wayOf(x.frame); got != x.want {
			t.Errorf("%+v is %+v, want %+v", x.frame, got, x.want)
		}
	}
}
