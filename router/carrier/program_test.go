package carrier

import "testing"

func TestTrafficMeter(t *testing.T) {
	var m trafficMeter
	for i, c := range []struct {
		frames, probes uint64
		want           bool
	}{
		{10, 10, false}, {12, 11, true}, {12, 12, false}, {14, 13, false}, {14, 14, false}, // a probe is counted late
		{17, 14, true}, {20, 17, false}, {120, 17, true}, {120, 100, false}, {121, 100, true}, // after the excess fell
	} {
		if got := m.moved(c.frames, c.probes); got != c.want {
			t.Errorf("%d: %d frames, %d probes: %v", i, c.frames, c.probes, got)
		}
	}
}
