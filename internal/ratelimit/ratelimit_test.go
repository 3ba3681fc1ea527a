package ratelimit

import (
	"testing"
	"time"
)

// TestBucket: the burst at once, then the rate; a clock that was set back neither adds tokens nor stops.
func TestBucket(t *testing.T) {
	b, now := New(10, 5), time.Unix(1_700_000_000, 0)
	allowed := func(n int) (count int) {
		for range n {
			if b.Allow(now) {
				count++
			}
		}
		return count
	}
	if n := allowed(100); n != 5 {
		t.Errorf("%d at once, want 5", n)
	}
	now = now.Add(300 * time.Millisecond)
	if n := allowed(100); n != 3 {
		t.Errorf("%d after 300 ms, want 3", n)
	}
	now = now.Add(time.Hour)
	if n := allowed(100); n != 5 {
		t.Errorf("%d after an hour, want 5", n)
	}
	now = now.Add(-time.Hour)
	if n := allowed(100); n != 0 {
		t.Errorf("%d after the clock was set back", n)
	}
	now = now.Add(time.Second)
	if n := allowed(100); n != 5 {
		t.Errorf("%d a second later, want 5", n)
	}
	if (&Bucket{}).Allow(now) {
		t.Error("the zero Bucket has a token")
	}
}
