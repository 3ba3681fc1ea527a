package replay

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

func TestAccept(t *testing.T) {
	for _, tt := range []struct {
		name     string
		counters []uint64
		want     []bool
	}{
		{"from zero, each once", []uint64{0, 1, 2, 2, 1, 0}, []bool{true, true, true, false, false, false}},
		{"out of order", []uint64{5, 3, 4, 3, 6}, []bool{true, true, true, false, true}},
		{"edge of the window", []uint64{Size, 1, 0, 1}, []bool{true, true, false, false}},
		{"a jump forgets", []uint64{7, 7 + 10*Size, 7 + 9*Size, 7 + 9*Size + 1, 7}, []bool{true, true, false, true, false}},
		{"last but one", []uint64{math.MaxUint64 - 1, math.MaxUint64 - 1, math.MaxUint64}, []bool{true, false, false}},
		{"begins anywhere", []uint64{1 << 63, 1<<63 - 1, 1 << 63}, []bool{true, true, false}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var w Window
			for i, c := range tt.counters {
				if got := w.Accept(c); got != tt.want[i] {
					t.Errorf("%d. counter %d: %v, want %v", i, c, got, tt.want[i])
				}
			}
		})
	}
}

// TestWide: a Wide knows repetitions up to its own size.
func TestWide(t *testing.T) {
	var w Wide
	for _, tt := range []struct {
		counter uint64
		want    bool
	}{
		{WideSize + 5, true}, {6, true}, {6, false}, {5, false}, {WideSize - 1, true}, {3 * WideSize, true}, {2*WideSize + 1, true},
		{2 * WideSize, false}, {WideSize + 5, false},
	} {
		if got := w.Accept(tt.counter); got != tt.want {
			t.Errorf("counter %d: %v, want %v", tt.counter, got, tt.want)
		}
	}
}

// TestModel compares the window with an unbounded set.
func TestModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var w Window
		seen, highest := map[uint64]bool{}, uint64(0)
		base := rapid.Uint64Range(0, math.MaxUint64/2).Draw(t, "base")
		for range rapid.IntRange(1, 300).Draw(t, "n") {
			var c uint64
			switch rapid.IntRange(0, 3).Draw(t, "kind") {
			case 0:
				c = max(highest, base) + rapid.Uint64Range(1, 100).Draw(t, "ahead")
			case 1:
				c = max(highest, base) + rapid.Uint64Range(1, 3*Size).Draw(t, "jump")
			default:
				c = max(highest, base) - min(highest, rapid.Uint64Range(0, 2*Size).Draw(t, "behind"))
			}
			want := !seen[c] && (len(seen) == 0 || c > highest || highest-c < Size)
			if got := w.Accept(c); got != want {
				t.Fatalf("counter %d after %d: %v, want %v", c, highest, got, want)
			}
			if want {
				seen[c] = true
				highest = max(highest, c)
			}
			if h, ok := w.Highest(); len(seen) > 0 && (!ok || h != highest) {
				t.Fatalf("highest %d, %v; want %d", h, ok, highest)
			}
		}
	})
}

// TestShuffled: each counter is accepted once, whatever the order within the window.
func TestShuffled(t *testing.T) {
	shuffled(t, new(Window), Size)
	shuffled(t, new(Wide), WideSize)
}

func shuffled(t *testing.T, w interface{ Accept(counter uint64) bool }, size int) {
	t.Helper()
	order := rand.New(rand.NewPCG(1, 2)).Perm(size)
	for round := range 2 {
		for _, c := range order {
			if got := w.Accept(uint64(c) + 12345); got != (round == 0) {
				t.Fatalf("round %d, counter %d: %v", round, c, got)
			}
		}
	}
}

func BenchmarkAccept(b *testing.B) {
	b.Run("window", func(b *testing.B) { benchmarkAccept(b, new(Window)) })
	b.Run("wide", func(b *testing.B) { benchmarkAccept(b, new(Wide)) })
}

func benchmarkAccept[R ring](b *testing.B, w *window[R]) {
	var c uint64
	for b.Loop() {
		w.Accept(c)
		c++
	}
}
