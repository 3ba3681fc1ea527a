package pmtu

import (
	"testing"
	"time"
)

// ethernet and jumbo are the Probers of peers on underlays with an MTU of 1,500 and 9,000 over IPv4.
var (
	ethernet = Config{Base: 1200, Max: 1472, Overhead: 28}
	jumbo    = Config{Base: 1200, Max: 8972, Overhead: 28}
	lan      = path{mtu: 1472, delay: time.Millisecond}
)

// TestFinds: the MTU of any path is found exactly, from both sides, soon and with few probes.
func TestFinds(t *testing.T) {
	for _, tt := range []struct {
		name      string
		cfg       Config
		from, to  int // MTUs of the path
		longest   time.Duration
		probes    int
		roundTrip time.Duration
	}{
		{"ethernet", Config{Base: 1200, Max: 1500}, 1200, 1500, 15 * time.Second, 50, time.Millisecond},
		{"ethernet with its headers", ethernet, 1200, 1472, 15 * time.Second, 50, time.Millisecond},
		{"far", ethernet, 1200, 1472, 30 * time.Second, 50, 300 * time.Millisecond},
		{"jumbo", jumbo, 8900, 8972, 15 * time.Second, 60, time.Millisecond},
		{"ethernet on the way of jumbo", jumbo, 1200, 1500, 20 * time.Second, 60, time.Millisecond},
		{"anything", jumbo, 1501, 1600, 20 * time.Second, 70, time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var slowest time.Duration
			var most int
			for mtu := tt.from; mtu <= tt.to; mtu++ {
				w := newWorld(t, tt.cfg, path{mtu: mtu, delay: tt.roundTrip}, uint64(mtu))
				if !w.run(tt.longest, w.settled) {
					t.Fatalf("path %d: %d after %s, %s", mtu, w.p.Size(), tt.longest, w.p.State())
				}
				slowest, most = max(slowest, w.now.Sub(start)), max(most, w.probes)
				if w.run(time.Minute, nil); w.p.Size() != mtu || w.p.State() == StateSilent {
					t.Fatalf("path %d: %d a minute later", mtu, w.p.Size())
				}
			}
			t.Logf("%s and %d probes at most", slowest, most)
			if most > tt.probes {
				t.Errorf("%d probes, want %d at most", most, tt.probes)
			}
		})
	}
}

// TestHope: if Max passes the path, one probe confirms it, and then one every two seconds.
func TestHope(t *testing.T) {
	w := newWorld(t, ethernet, lan, 1)
	if w.p.Size() != 1472 || w.p.State() != StateUnconfirmed {
		t.Fatalf("%d, %s", w.p.Size(), w.p.State())
	}
	w.run(100*time.Millisecond, nil)
	if w.probes != 1 || w.p.State() != StateConfirmed || w.p.RTT() != time.Millisecond {
		t.Errorf("%d probes, %s, %s", w.probes, w.p.State(), w.p.RTT())
	}
	w.run(time.Minute, nil)
	if w.probes > 31 || w.sizes != 0 {
		t.Errorf("%d probes in a minute, %d changes", w.probes, w.sizes)
	}
}

// TestIdle: without traffic nothing is sent, except for the rest of a search.
func TestIdle(t *testing.T) {
	w := newWorld(t, ethernet, lan, 1)
	w.traffic = false
	if w.run(time.Hour, nil); w.probes != 0 || !w.p.Deadline().IsZero() {
		t.Fatalf("%d probes without traffic", w.probes)
	}
	w.p.Traffic()
	w.path.mtu = 1400
	if w.run(15*time.Second, w.settled); !w.settled() {
		t.Fatalf("the search ended with %d", w.p.Size())
	}
	before := w.probes
	if w.run(24*time.Hour, nil); w.probes > before+1 || !w.p.Deadline().IsZero() {
		t.Errorf("%d probes without traffic after the search", w.probes-before)
	}
	w.path.down = true
	w.p.Traffic()
	if w.run(24*time.Hour, nil); w.probes > before+10 || w.p.State() != StateSilent || w.p.Size() != 1400 {
		t.Errorf("%d probes to a silent peer without traffic; %s, %d", w.probes-before, w.p.State(), w.p.Size())
	}
}

// TestBlackHole: a path that silently becomes narrow is noticed within ten seconds, at any moment between
// confirmations, and the larger MTU is found again within a minute, as it is there again soon.
func TestBlackHole(t *testing.T) {
	for _, tt := range []struct {
		name string
		cfg  Config
		path path
		mtu  int
	}{
		{"tunnel", ethernet, lan, 1392},
		{"least", ethernet, lan, 1200},
		{"by one byte", ethernet, lan, 1471},
		{"jumbo", jumbo, path{mtu: 8972, delay: time.Millisecond}, 1472},
		{"far", ethernet, path{mtu: 1472, delay: 300 * time.Millisecond, jitter: 50 * time.Millisecond}, 1392},
		{"very far", ethernet, path{mtu: 1472, delay: 900 * time.Millisecond}, 1392},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var slowest, wide time.Duration
			for phase := range 40 {
				w := newWorld(t, tt.cfg, tt.path, uint64(phase))
				w.run(time.Minute+time.Duration(phase)*50*time.Millisecond, nil)
				since := w.now
				w.path.mtu = tt.mtu
				if !w.run(10*time.Second, func() bool { return w.p.Size() <= tt.mtu }) {
					t.Fatalf("after %s still %d", w.now.Sub(since), w.p.Size())
				}
				slowest = max(slowest, w.now.Sub(since))
				if !w.run(time.Minute, w.settled) {
					t.Fatalf("the search ended with %d, %s", w.p.Size(), w.p.State())
				}
				since = w.now
				w.path.mtu = tt.path.mtu
				if !w.run(time.Minute, w.settled) {
					t.Fatalf("after a minute still %d", w.p.Size())
				}
				wide = max(wide, w.now.Sub(since))
			}
			t.Logf("noticed within %s, wide again within %s", slowest, wide)
		})
	}
}

// TestHopByHop: the interface of this node gets a larger MTU before the rest of the path does, at any moment of the search. The new size
// is found soon after, but a path that stays narrow is hardly searched.
func TestHopByHop(t *testing.T) {
	for phase := range 100 {
		w := newWorld(t, Config{Base: 1200, Max: 1372, Overhead: 28}, path{mtu: 1372, delay: time.Millisecond}, uint64(phase))
		w.run(time.Minute, nil)
		w.p.SetMax(1472, w.now)
		w.run(time.Duration(phase)*50*time.Millisecond, nil)
		w.path.mtu = 1472
		if !w.run(30*time.Second, w.settled) {
			t.Fatalf("wide after %d ms, and still %d after half a minute", phase*50, w.p.Size())
		}
	}
	w := newWorld(t, ethernet, path{mtu: 1372, delay: time.Millisecond}, 1)
	w.run(time.Hour, nil)
	before := w.probes
	if w.run(time.Hour, nil); w.probes > before+1800+12*30 { // confirmations, and thirty for each search
		t.Errorf("%d probes an hour", w.probes-before)
	}
}

// TestDown: a peer that is gone does not change the size, and is found again.
func TestDown(t *testing.T) {
	for _, tt := range []struct {
		name         string
		before, then int // of the path
	}{{"as before", 1472, 1472}, {"narrow", 1472, 1392}, {"was narrow", 1392, 1392}, {"was narrow, now wide", 1392, 1472}} {
		t.Run(tt.name, func(t *testing.T) {
			for phase := range 40 {
				w := newWorld(t, ethernet, path{mtu: tt.before, delay: time.Millisecond}, uint64(phase))
				w.run(time.Minute+time.Duration(phase)*50*time.Millisecond, nil)
				probes, sizes := w.probes, w.sizes
				w.path.down = true
				w.run(time.Hour, nil)
				if w.sizes != sizes || w.p.State() != StateSilent {
					t.Fatalf("without a peer the size changed to %d, %s", w.p.Size(), w.p.State())
				}
				if probes = w.probes - probes; probes > 1000 {
					t.Fatalf("%d probes in an hour for a dead peer", probes)
				}
				w.path.down, w.path.mtu = false, tt.then
				if !w.run(maxSilence+3*time.Second, func() bool {
					return w.p.State() != StateSilent && w.p.Size() <= tt.then
				}) {
					t.Fatalf("back, and still %d, %s", w.p.Size(), w.p.State())
				}
				if !w.run(6*time.Minute, w.settled) {
					t.Fatalf("path %d, size %d", tt.then, w.p.Size())
				}
			}
		})
	}
}

// TestDownFromTheStart: for a peer that never replies, the size is that of the underlay.
func TestDownFromTheStart(t *testing.T) {
	w := newWorld(t, ethernet, path{down: true}, 1)
	w.run(time.Hour, nil)
	if w.p.Size() != 1472 || w.p.State() != StateSilent || w.probes > 1200 {
		t.Errorf("%d, %s, %d probes", w.p.Size(), w.p.State(), w.probes)
	}
}

// TestSlower: a round-trip time that becomes far longer than the timeout does not count as a black hole, as late
// replies count.
func TestSlower(t *testing.T) {
	for _, delay := range []time.Duration{150 * time.Millisecond, 700 * time.Millisecond, 1500 * time.Millisecond} {
		w := newWorld(t, ethernet, lan, 1)
		w.run(time.Minute, nil)
		w.path.delay = delay
		w.run(10*time.Minute, nil)
		if w.p.Size() != 1472 || w.sizes != 0 || !w.settled() {
			t.Errorf("%s: %d, %s, %d changes", delay, w.p.Size(), w.p.State(), w.sizes)
		}
		if off := w.p.RTT() - delay; off < -10*time.Millisecond || off > 0 {
			t.Errorf("%s: RTT %s", delay, w.p.RTT())
		}
	}
}

func TestStrangeAnswers(t *testing.T) {
	p := New(ethernet)
	p.Traffic()
	size, token, ok := p.Next(start)
	if !ok || size != 1472 {
		t.Fatalf("%d, %v", size, ok)
	}
	for _, tt := range []struct {
		name  string
		token uint32
		size  int
		after time.Duration
		want  bool
	}{
		{"another token", token + 1, size, time.Millisecond, false},
		{"none", 0, 0, time.Millisecond, false},
		{"cut on its way", token, size - 1, time.Millisecond, false},
		{"too late", token, size, memory + 1, false},
		{"good", token, size, 5 * time.Millisecond, true},
		{"again", token, size, 6 * time.Millisecond, false},
	} {
		before := *p
		rtt, ok := p.Acked(tt.token, tt.size, start.Add(tt.after))
		if ok != tt.want || ok && rtt != tt.after {
			t.Errorf("%s: %s, %v", tt.name, rtt, ok)
		}
		if !ok && *p != before {
			t.Errorf("%s: it changed something", tt.name)
		}
	}
	if p.State() != StateConfirmed {
		t.Error(p.State())
	}
}

// TestHints: unauthenticated reports make a narrow path known sooner, but do not change the size of a wide one.
func TestHints(t *testing.T) {
	w := newWorld(t, ethernet, path{mtu: 1472, delay: time.Millisecond, reports: true}, 1)
	w.run(time.Minute, nil)
	before := w.probes
	for range 600 { // ten a second
		w.p.TooBig(1472, 1300, w.now)
		w.p.TooBig(0, 0, w.now)
		w.p.TooBig(1400, 1450, w.now)
		w.run(100*time.Millisecond, nil)
	}
	if w.sizes != 0 || w.probes > before+62 {
		t.Errorf("lies: size %d, %d probes in a minute", w.p.Size(), w.probes-before)
	}
	w.path.mtu = 1333 // no common one
	since := w.now
	if !w.run(time.Minute, w.settled) || w.now.Sub(since) > 6*time.Second {
		t.Errorf("truth: %d after %s", w.p.Size(), w.now.Sub(since))
	}
}

func TestSetMax(t *testing.T) {
	w := newWorld(t, ethernet, path{mtu: 9000, delay: time.Millisecond}, 1)
	w.p.SetMax(1400, w.now)
	if w.p.Size() != 1400 || w.p.State() != StateUnconfirmed {
		t.Errorf("%d, %s", w.p.Size(), w.p.State())
	}
	w.p.SetMax(1472, w.now)
	if w.p.Size() != 1472 {
		t.Errorf("what was never confirmed is not hoped for: %d", w.p.Size())
	}
	for _, largest := range []int{1472, 8972, 8972, 1000, 600, 1100, 1472, 1500} {
		w.p.SetMax(largest, w.now)
		if w.check(); w.p.Size() > largest {
			t.Errorf("%d where %d may be sent", w.p.Size(), largest)
		}
		if w.run(5*time.Second, w.settled); !w.settled() {
			t.Errorf("max %d: %d, %s", largest, w.p.Size(), w.p.State())
		}
	}
	w.path.mtu = 1300
	w.run(time.Minute, nil)
	w.p.SetMax(1250, w.now)
	if w.run(time.Minute, nil); w.p.Size() != 1250 || !w.settled() {
		t.Errorf("%d, %s", w.p.Size(), w.p.State())
	}
}

func TestStateNames(t *testing.T) {
	seen := map[string]bool{"": true, "invalid": true}
	for s := StateUnconfirmed; s <= StateSilent; s++ {
		text, err := s.MarshalText()
		if err != nil || seen[string(text)] {
			t.Errorf("state %d is called %q, %v", s, text, err)
		}
		seen[string(text)] = true
	}
	if State(0).String() != "invalid" {
		t.Error("the zero state has a name")
	}
}

func TestNoAllocation(t *testing.T) {
	p, now := New(ethernet), start
	if n := testing.AllocsPerRun(1000, func() {
		p.Traffic()
		now = now.Add(100 * time.Millisecond)
		if size, token, ok := p.Next(now); ok && size < 1400 {
			p.Acked(token, size, now)
		}
		_ = p.Deadline()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
