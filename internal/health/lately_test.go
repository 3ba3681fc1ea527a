package health

import (
	"testing"
	"time"
)

// TestLately: only the growth of the last minutes counts.
func TestLately(t *testing.T) {
	var l Lately
	now := time.Now()
	for _, step := range []struct {
		after       time.Duration
		total, want uint64
	}{{0, 7, 7}, {time.Minute, 9, 9}, {latelyFor, 9, 9}, {latelyFor, 9, 0}, {time.Minute, 12, 3}, {4 * latelyFor, 12, 0}, {0, 13, 1}} {
		now = now.Add(step.after)
		if got := l.Growth(step.total, now); got != step.want {
			t.Errorf("%+v: %d", step, got)
		}
	}
}
