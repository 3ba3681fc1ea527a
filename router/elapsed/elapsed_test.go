package elapsed

import (
	"testing"
	"time"
)

func TestSince(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	for _, c := range []struct {
		at   time.Time
		want time.Duration
	}{
		{now, 0},
		{now.Add(-time.Second), time.Second},
		{now.Add(-2 * never), 2 * never},
		{now.Add(time.Nanosecond), never},
		{time.Time{}, never},
	} {
		if got := Since(c.at, now); got != c.want {
			t.Errorf("since %v: %s, want %s", c.at, got, c.want)
		}
	}
}
