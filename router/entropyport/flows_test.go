package entropyport

import (
	"testing"
	"time"

	"weft/internal/flowhash"
)

// TestFlows: a flow changes ports in a pause only, unless its port may not carry it any more. Other flows do not matter.
func TestFlows(t *testing.T) {
	const a, b flowhash.Flow = 1, 2
	var f Flows
	now := time.Unix(1_700_000_000, 0)
	for i, step := range []struct {
		after time.Duration
		flow  flowhash.Flow
		may   bool
		want  bool
	}{
		{0, a, true, true}, // a new flow
		{0, b, false, false},
		{changeAfter - time.Millisecond, b, true, false},
		{changeAfter - time.Millisecond, b, true, false}, // since the last frame
		{changeAfter, b, true, true},
		{0, a, true, true},
		{time.Millisecond, a, false, false}, // the proof has ended
		{time.Hour, a, false, false},
		{time.Millisecond, a, true, false},
		{-time.Minute, a, true, true}, // the clock was set back
		{0, b, true, true},
	} {
		now = now.Add(step.after)
		if got := f.Leave(step.flow, step.may, now); got != step.want {
			t.Errorf("step %d: leaves from the entropy port: %v, want %v", i, got, step.want)
		}
	}
}

// TestSharedSlot: frames to a peer without proven ports do not move the flow of another peer that shares their slot.
func TestSharedSlot(t *testing.T) {
	var f Flows
	now := time.Unix(1_700_000_000, 0)
	for range 1000 {
		now = now.Add(time.Millisecond)
		if !f.Leave(1, true, now) || f.Leave(1, false, now) {
			t.Fatal("a flow changed ports")
		}
	}
}

// TestDue: the first frame after a pause, or since the start, says that a probe has waited for it, and no other one does.
func TestDue(t *testing.T) {
	d := newDriver()
	first := func(when string, want bool) {
		t.Helper()
		for i := range 3 {
			if _, due := d.Carries(d.to.Addr); due != (want && i == 0) {
				t.Errorf("%s: frame %d: due %v", when, i, due)
			}
		}
		d.used.Store(false)
	}
	first("the start", true)
	d.step(true, true)
	first("answered", false)
	d.run(time.Second, true, true)
	first("soon afterwards", false)
	d.run(proofLasts+time.Second, false, true)
	first("a pause", true)
	d.step(true, false)
	for range 4 {
		d.step(false, false)
		first("unanswered", false)
	}
	d.step(false, false)
	first("a second later", true)
}
