package roaming

import (
	"net/netip"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// at returns the nth address of the tests.
func at(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{192, 0, 2, byte(n)}), 6784)
}

// world drives one Validator with a simulated clock.
type world struct {
	Validator
	now    time.Time
	tokens uint32
	sent   []Probe
}

func newWorld() *world { return &world{now: time.Unix(1_700_000_000, 0)} }

// run lets time pass and returns the number of probes sent.
func (w *world) run(d time.Duration) int {
	before := len(w.sent)
	for end := w.now.Add(d); w.now.Before(end); w.now = w.now.Add(10 * time.Millisecond) {
		w.probe()
	}
	return len(w.sent) - before
}

func (w *world) probe() {
	for {
		p, ok := w.Next(w.now, func() uint32 { w.tokens++; return w.tokens })
		if !ok {
			return
		}
		w.sent = append(w.sent, p)
	}
}

// TestProven: a candidate is probed at once, and its answer proves it. Before, after a move, and for another token nothing
// is proven.
func TestProven(t *testing.T) {
	w := newWorld()
	w.Propose(Seen, at(7), w.now)
	if _, ok := w.Proves(0, w.now); ok {
		t.Error("proven without a probe")
	}
	w.probe()
	if len(w.sent) != 1 || w.sent[0].Addr != at(7) {
		t.Fatalf("sent %v", w.sent)
	}
	if _, ok := w.Proves(w.sent[0].Token+1, w.now); ok {
		t.Error("proven by another token")
	}
	if addr, ok := w.Proves(w.sent[0].Token, w.now.Add(time.Second)); !ok || addr != at(7) {
		t.Errorf("%s, %v", addr, ok)
	}
	if _, ok := w.Proves(w.sent[0].Token, w.now.Add(proofWindow)); ok {
		t.Error("proven by an answer that is too late")
	}
	if w.Reached(at(7), true, w.now) {
		t.Error("the address was announced")
	}
	if _, ok := w.Proves(w.sent[0].Token, w.now); ok {
		t.Error("an answer counts twice")
	}
	if n := w.run(time.Minute); n != 0 {
		t.Errorf("%d probes after the move", n)
	}
}

// TestNoAnswer: a candidate gets five probes; proposed all the time it gets them again after ten seconds.
func TestNoAnswer(t *testing.T) {
	w := newWorld()
	w.Propose(Announced, at(7), w.now)
	if n := w.run(time.Minute); n != maxProbes {
		t.Errorf("%d probes, want %d", n, maxProbes)
	}
	if !w.Reached(at(7), true, w.now.Add(-time.Hour)) {
		t.Error("the address was not announced")
	}
	w.sent = nil
	for range 6000 {
		w.Propose(Seen, at(8), w.now)
		w.run(10 * time.Millisecond)
	}
	if len(w.sent) < 20 || len(w.sent) > 25 {
		t.Errorf("%d probes in a minute, want five each 13 s", len(w.sent))
	}
}

// TestMovesAreSpaced: after a move the next candidate is probed half a second later.
func TestMovesAreSpaced(t *testing.T) {
	w := newWorld()
	w.Reached(at(1), true, w.now)
	w.Propose(Seen, at(2), w.now)
	if n := w.run(moveEach - 10*time.Millisecond); n != 0 {
		t.Errorf("%d probes within half a second of a move", n)
	}
	if n := w.run(100 * time.Millisecond); n != 1 {
		t.Errorf("%d probes afterwards, want 1", n)
	}
}

// TestBounds: whatever is proposed, and however often, at most ten probes a second are sent, only to addresses that were
// proposed, and one answer in time proves its address although others were proposed since.
func TestBounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		w := newWorld()
		begin, proposed := w.now, map[netip.AddrPort]bool{}
		for range rapid.IntRange(1, 300).Draw(t, "steps") {
			n := rapid.IntRange(1, 50).Draw(t, "address")
			w.Propose(Reason(rapid.IntRange(1, 2).Draw(t, "reason")), at(n), w.now)
			proposed[at(n)] = true
			w.probe()
			w.now = w.now.Add(time.Duration(rapid.IntRange(0, 60).Draw(t, "pause")) * time.Millisecond)
		}
		if most := 1 + int(w.now.Sub(begin)/probeEach); len(w.sent) > most {
			t.Fatalf("%d probes in %s", len(w.sent), w.now.Sub(begin))
		}
		for _, p := range w.sent {
			if !proposed[p.Addr] {
				t.Fatalf("a probe to %s", p.Addr)
			}
		}
		last := w.sent[len(w.sent)-1]
		if addr, ok := w.Proves(last.Token, w.now); w.now.Sub(w.probedAt) < proofWindow && (!ok || addr != last.Addr) {
			t.Fatalf("the last probe proves %s, %v", addr, ok)
		}
	})
}

// TestClockSetBack: a clock that was set back stops nothing.
func TestClockSetBack(t *testing.T) {
	w := newWorld()
	w.Reached(at(1), true, w.now)
	w.Propose(Seen, at(2), w.now)
	w.now = w.now.Add(-time.Hour)
	if n := w.run(time.Second); n == 0 {
		t.Error("no probe")
	}
}
