package pmtu

import (
	"flag"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var days = flag.Int("days", 2, "simulated days of traffic over a lossy path")

// TestLoss: a path that loses datagrams but passes Max does not count as narrow. The test logs how often the size
// shrank, and how long it was too small.
func TestLoss(t *testing.T) {
	for _, tt := range []struct {
		name string
		loss float64 // in each direction
		most float64 // shrinks a day
	}{
		{"1 %", 0.01, 0},
		{"5 %", 0.05, 0},
		{"10 %", 0.10, 3},
		{"20 %", 0.20, 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var shrinks, probes int
			var below time.Duration
			for day := range *days {
				w := newWorld(t, ethernet, path{
					mtu: 1472, loss: tt.loss, duplicate: 0.01, delay: 5 * time.Millisecond, jitter: 20 * time.Millisecond,
				}, uint64(day))
				since := w.now
				w.run(24*time.Hour, func() bool {
					if w.p.Size() < 1472 {
						below += w.now.Sub(since)
					}
					since = w.now
					return false
				})
				shrinks, probes = shrinks+w.shrinks, probes+w.probes
			}
			perDay := float64(shrinks) / float64(*days)
			t.Logf("%d days: %.3g shrinks a day, %s of a day below, %.2f probes a second", *days, perDay,
				below/time.Duration(*days), float64(probes)/float64(*days)/(24*time.Hour).Seconds())
			if perDay > tt.most {
				t.Errorf("%.3g shrinks a day, want %g at most", perDay, tt.most)
			}
		})
	}
}

// TestLossAndSearch: loss causes few wrong results of searches, and the next search corrects them. The black hole
// itself is noticed in time although the path loses datagrams as well.
func TestLossAndSearch(t *testing.T) {
	const n = 500
	var late, wrong int
	for seed := range n {
		w := newWorld(t, ethernet, path{mtu: 1472, loss: 0.05, delay: time.Millisecond}, uint64(seed))
		w.run(time.Minute, nil)
		w.path.mtu = 1392
		if !w.run(10*time.Second, func() bool { return w.p.Size() <= 1392 }) {
			late++
		}
		w.run(time.Minute, nil)
		if !w.settled() && w.p.State() == StateConfirmed {
			wrong++
		}
		if !w.run(20*time.Minute, w.settled) {
			t.Errorf("seed %d: %d, %s", seed, w.p.Size(), w.p.State())
		}
	}
	t.Logf("of %d: %d noticed later than ten seconds, %d searches too low", n, late, wrong)
	if late > n/50 || wrong > n/20 {
		t.Errorf("%d late and %d wrong of %d", late, wrong, n)
	}
}

// TestOutages: a path with outages does not count as narrow. The outages happen during trials.
func TestOutages(t *testing.T) {
	shrinks := 0
	for seed := range 200 {
		w := newWorld(t, ethernet, path{mtu: 1472, loss: 0.02, delay: time.Millisecond}, uint64(seed))
		for range 50 {
			w.run(time.Duration(w.rand.Int64N(int64(10*time.Second))), nil)
			w.path.down = true
			w.run(time.Duration(w.rand.Int64N(int64(3*time.Second))), nil)
			w.path.down = false
		}
		shrinks += w.shrinks
	}
	t.Logf("%d shrinks in 10,000 outages", shrinks)
	if shrinks > 20 {
		t.Errorf("%d shrinks in 10,000 outages", shrinks)
	}
}

// TestAnything: whatever happens on the path and at the peer, sizes stay within their bounds and probes within their
// rate (world checks both after every step). When the path is stable again, the search finds its MTU.
func TestAnything(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		base := rapid.IntRange(500, 1500).Draw(t, "base")
		cfg := Config{
			Base: base, Max: rapid.IntRange(base-100, 9000).Draw(t, "max"), Overhead: rapid.SampledFrom([]int{0, 28, 48}).Draw(t, "overhead"),
		}
		w := newWorld(t, cfg, path{mtu: rapid.IntRange(0, 9000).Draw(t, "path"), delay: time.Millisecond}, rapid.Uint64().Draw(t, "seed"))
		size := rapid.OneOf(rapid.IntRange(0, 9100), rapid.SampledFrom([]int{0, 1200, 1372, 1472, 8972}))
		t.Repeat(map[string]func(*rapid.T){
			"mtu":  func(t *rapid.T) { w.path.mtu = size.Draw(t, "mtu") },
			"max":  func(t *rapid.T) { w.p.SetMax(size.Draw(t, "max"), w.now) },
			"hint": func(t *rapid.T) { w.p.TooBig(size.Draw(t, "size"), size.Draw(t, "mtu"), w.now) },
			"path": func(t *rapid.T) {
				w.path.loss = rapid.SampledFrom([]float64{0, 0.05, 0.3}).Draw(t, "loss")
				w.path.duplicate = rapid.SampledFrom([]float64{0, 0.5}).Draw(t, "duplicate")
				w.path.delay = rapid.SampledFrom([]time.Duration{0, time.Millisecond, 150 * time.Millisecond, 3 * time.Second}).Draw(t, "delay")
				w.path.jitter = rapid.SampledFrom([]time.Duration{0, 50 * time.Millisecond, time.Second}).Draw(t, "jitter")
				w.path.down = rapid.IntRange(0, 4).Draw(t, "down") == 0
			},
			"forge":   func(t *rapid.T) { w.p.Acked(rapid.Uint32().Draw(t, "token"), size.Draw(t, "size"), w.now) },
			"traffic": func(t *rapid.T) { w.traffic = rapid.Bool().Draw(t, "on") },
			"run": func(t *rapid.T) {
				w.run(rapid.SampledFrom([]time.Duration{0, 130 * time.Millisecond, time.Second, 5 * time.Second, 10 * time.Minute}).Draw(t, "for"), nil)
			},
		})
		w.traffic = true
		w.path = path{mtu: max(w.path.mtu, w.p.effectiveBase()), delay: time.Millisecond}
		w.run(20*time.Second, nil) // answers of before arrive, the timeout becomes short
		before := w.probes
		if w.run(20*time.Minute, w.settled); !w.settled() {
			t.Fatalf("path %d: %d, %s", w.path.mtu, w.p.Size(), w.p.State())
		}
		if w.probes > before+1000 {
			t.Fatalf("%d probes", w.probes-before)
		}
	})
}
