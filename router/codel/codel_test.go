package codel

import (
	"testing"
	"time"
)

const (
	target   = time.Millisecond
	interval = 20 * time.Millisecond
	step     = 100 * time.Microsecond // between packets
)

// feed has packets that each waited for the given time leave the queue during span, and returns when there were signals, since the start.
func feed(q *Queue, now *time.Time, span, waited, roundTrip time.Duration) (signals []time.Duration) {
	for start := *now; now.Sub(start) < span; *now = now.Add(step) {
		if q.Signal(waited, roundTrip, *now) {
			signals = append(signals, now.Sub(start))
		}
	}
	return signals
}

func TestShortWaits(t *testing.T) {
	q, now := New(target, interval), time.Unix(1_700_000_000, 0)
	if s := feed(q, &now, time.Second, target-1, 0); len(s) > 0 {
		t.Errorf("signals at %v", s)
	}
	for range 100 { // bursts
		if s := feed(q, &now, interval-step, 50*time.Millisecond, 0); len(s) > 0 {
			t.Fatalf("signals during a burst: %v", s)
		}
		feed(q, &now, step, 0, 0)
	}
}

// TestStandingQueue: signals begin after an interval, and come at the intervals of RFC 8289, section 4.3.
func TestStandingQueue(t *testing.T) {
	q, now := New(target, interval), time.Unix(1_700_000_000, 0)
	got := feed(q, &now, 100*time.Millisecond, target, 0)
	want := []time.Duration{200, 400, 542, 657, 757, 847, 928} // steps: 20 ms, then 20 ms divided by the square roots of 1, 2, 3...
	if len(got) != len(want) {
		t.Fatalf("signals at %v", got)
	}
	for i := range want {
		if d := got[i] - want[i]*step; d < -2*step || d > 2*step {
			t.Errorf("signal %d at %v, want %v", i, got[i], want[i]*step)
		}
	}
	if s := feed(q, &now, step, 0, 0); len(s) > 0 {
		t.Error("a signal with an empty queue")
	}
	// It stands again soon: signals go on at the earlier rate.
	if s := feed(q, &now, 40*time.Millisecond, target, 0); len(s) < 3 {
		t.Errorf("signals at %v after a short pause", s)
	}
	feed(q, &now, time.Second, 0, 0)
	if s := feed(q, &now, 40*time.Millisecond, target, 0); len(s) != 1 {
		t.Errorf("signals at %v after a long pause", s)
	}
}

// TestRoundTrip: a sender far away may have a longer queue, and gets more time.
func TestRoundTrip(t *testing.T) {
	q, now := New(target, interval), time.Unix(1_700_000_000, 0)
	const roundTrip = 20 * time.Millisecond
	if s := feed(q, &now, time.Second, target+roundTrip/4-1, roundTrip); len(s) > 0 {
		t.Errorf("signals at %v", s)
	}
	if s := feed(q, &now, interval+roundTrip+step, target+roundTrip/4, roundTrip); len(s) != 1 || s[0] != interval+roundTrip {
		t.Errorf("signals at %v", s)
	}
}
