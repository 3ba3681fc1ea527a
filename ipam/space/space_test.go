package space

import (
	"errors"
	"math/bits"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func owning(spans ...Span) *Space {
	var s Space
	s.SetOwned(spans)
	return &s
}

func TestAllocateIsLowestWithin(t *testing.T) {
	s := owning(Span{10, 12}, Span{20, 30})
	for _, tt := range []struct {
		within Span
		want   uint64
		ok     bool
	}{
		{everything, 10, true},
		{Span{21, 25}, 21, true},
		{everything, 11, true},
		{everything, 20, true},
		{Span{0, 20}, 0, false},
		{Span{24, 24}, 0, false},
		{Span{29, 99}, 29, true},
		{Span{29, 99}, 0, false},
	} {
		if got, ok := s.Allocate(tt.within); got != tt.want || ok != tt.ok {
			t.Errorf("Allocate(%v) = %d, %v, want %d, %v", tt.within, got, ok, tt.want, tt.ok)
		}
	}
}

func TestErrors(t *testing.T) {
	s := owning(Span{1, 3})
	if err := s.Claim(3); !errors.Is(err, ErrNotOwned) {
		t.Error(err)
	}
	if err := s.Claim(2); err != nil {
		t.Error(err)
	}
	if err := s.Claim(2); !errors.Is(err, ErrTaken) {
		t.Error(err)
	}
	if err := s.Release(2); err != nil {
		t.Error(err)
	}
	if err := s.Release(2); !errors.Is(err, ErrNotTaken) {
		t.Error(err)
	}
	if err := s.Release(9); !errors.Is(err, ErrNotOwned) {
		t.Error(err)
	}
}

func TestDonation(t *testing.T) {
	for _, tt := range []struct {
		name   string
		run    Span
		within Span
		want   Span
		ok     bool
	}{
		{"none", Span{}, everything, Span{}, false},
		{"the only one", Span{7, 8}, everything, Span{7, 8}, true},
		{"one of two", Span{7, 9}, everything, Span{8, 9}, true},
		{"the smaller half", Span{7, 10}, everything, Span{9, 10}, true},
		{"half of a /12 without its first and last", Span{1, 1<<20 - 1}, everything, Span{1 << 19, 1<<20 - 1}, true},
		{"near the middle, at a block", Span{9, 1024}, everything, Span{512, 1024}, true},
		{"within the requested span", Span{0, 1024}, Span{256, 512}, Span{384, 512}, true},
		{"a huge range", Span{1, 1 << 40}, everything, Span{1 << 39, 1 << 40}, true},
	} {
		if got, ok := owning(tt.run).Donation(tt.within); got != tt.want || ok != tt.ok {
			t.Errorf("%s: %v, %v, want %v, %v", tt.name, got, ok, tt.want, tt.ok)
		}
	}
}

func TestDonationIsAboutHalf(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		start := rapid.Uint64Range(0, 1<<40).Draw(t, "start")
		n := rapid.Uint64Range(2, 1<<40).Draw(t, "length")
		grant, ok := owning(Span{start, start + n}).Donation(everything)
		if !ok || grant.End != start+n || grant.Start <= start || grant.Len() == 0 {
			t.Fatalf("grant %v of [%d, %d)", grant, start, start+n)
		}
		if min, max := n/2-n/8, n-n/2+n/8; grant.Len() < min || grant.Len() > max {
			t.Fatalf("grant of %d of %d", grant.Len(), n)
		}
		// Of every run of n offsets, one is divided by a power of two of at least n/2.
		if align := uint64(1) << bits.TrailingZeros64(grant.Start|1<<63); n >= 64 && align < n/16 {
			t.Fatalf("cut at %#x, aligned to %d only, of %d", grant.Start, align, n)
		}
	})
}

// model is a Space as a map: the owned offsets, true where free.
type model map[uint64]bool

func (m model) check(t *rapid.T, s *Space) {
	free := uint64(0)
	for o := uint64(0); o < modelSize; o++ {
		isFree, owned := m[o]
		if s.Owns(o) != owned || s.Free(o) != isFree {
			t.Fatalf("offset %d: owned %v free %v, want %v %v", o, s.Owns(o), s.Free(o), owned, isFree)
		}
		if isFree {
			free++
		}
	}
	if s.Len() != uint64(len(m)) || s.FreeIn(everything) != free {
		t.Fatalf("%d owned, %d free, want %d, %d", s.Len(), s.FreeIn(everything), len(m), free)
	}
	for _, spans := range [][]Span{s.owned, s.free} {
		if diff := cmp.Diff(normal(spans), spans); diff != "" && len(spans) > 0 {
			t.Fatalf("not sorted, disjoint and joined: %s", diff)
		}
	}
}

const modelSize = 40

func drawSpan(t *rapid.T) Span {
	start := rapid.Uint64Range(0, modelSize).Draw(t, "start")
	return Span{start, rapid.Uint64Range(start, modelSize).Draw(t, "end")}
}

func TestSpaceAgainstMap(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var s Space
		m := make(model)
		t.Repeat(map[string]func(*rapid.T){
			"own": func(t *rapid.T) {
				spans := rapid.SliceOfN(rapid.Custom(drawSpan), 0, 4).Draw(t, "spans")
				s.SetOwned(spans)
				now := make(model)
				for _, span := range spans {
					for o := span.Start; o < span.End; o++ {
						free, was := m[o]
						now[o] = free || !was
					}
				}
				m = now
			},
			"allocate": func(t *rapid.T) {
				within := drawSpan(t)
				got, ok := s.Allocate(within)
				for o := within.Start; o < within.End; o++ {
					if m[o] {
						if !ok || got != o {
							t.Fatalf("Allocate(%v) = %d, %v, want %d", within, got, ok, o)
						}
						m[o] = false
						return
					}
				}
				if ok {
					t.Fatalf("Allocate(%v) = %d, want none", within, got)
				}
			},
			"claim": func(t *rapid.T) {
				o := rapid.Uint64Range(0, modelSize-1).Draw(t, "offset")
				if err := s.Claim(o); (err == nil) != m[o] {
					t.Fatalf("Claim(%d): %v, free %v", o, err, m[o])
				} else if err == nil {
					m[o] = false
				}
			},
			"release": func(t *rapid.T) {
				o := rapid.Uint64Range(0, modelSize-1).Draw(t, "offset")
				free, owned := m[o]
				if err := s.Release(o); (err == nil) != (owned && !free) {
					t.Fatalf("Release(%d): %v", o, err)
				} else if err == nil {
					m[o] = true
				}
			},
			"measure": func(t *rapid.T) {
				within := drawSpan(t)
				var owned, free, run, longest uint64
				for o := within.Start; o < within.End; o++ {
					isFree, isOwned := m[o]
					if isOwned {
						owned++
					}
					run++
					if !isFree {
						run = 0
					} else {
						free++
					}
					longest = max(longest, run)
				}
				if s.OwnedIn(within) != owned || s.FreeIn(within) != free || s.LargestFree(within).Len() != longest {
					t.Fatalf("within %v: %d owned, %d free, longest %v; want %d, %d, %d", within,
						s.OwnedIn(within), s.FreeIn(within), s.LargestFree(within), owned, free, longest)
				}
			},
			"": func(t *rapid.T) { m.check(t, &s) },
		})
	})
}

// BenchmarkScattered allocates and releases in the worst case: every other address of a /12 is free.
func BenchmarkScattered(b *testing.B) {
	s := owning(Span{0, 1 << 20})
	for o := uint64(0); o < 1<<20; o += 2 {
		if err := s.Claim(o); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportAllocs()
	for b.Loop() {
		o, _ := s.Allocate(everything)
		if err := s.Release(o); err != nil {
			b.Fatal(err)
		}
	}
}
