package vxlan

import (
	"testing"

	"pgregory.net/rapid"
)

func TestAgreeVNI(t *testing.T) {
	for name, c := range map[string]struct {
		own  uint32
		rest []uint32
		want uint32
	}{
		"no node has one":              {0, []uint32{0, 0}, 0},
		"this node is the only one":    {7, nil, 7},
		"a new node":                   {0, []uint32{0, 9, 9}, 9},
		"most count, not the lowest":   {7, []uint32{9, 9}, 9},
		"one member changes nothing":   {9, []uint32{9, 1}, 9},
		"the lowest of the same count": {9, []uint32{9, 8, 8}, 8},
		"nodes without one":            {9, []uint32{0, 0, 0}, 9},
	} {
		if got := AgreeVNI(c.own, c.rest); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

// TestVNIConverges: nodes that start with any VNIs, and learn of changes in any order, end with one.
func TestVNIConverges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "nodes")
		own := rapid.SliceOfN(rapid.Uint32Range(1, 4), n, n).Draw(t, "VNIs")
		known := make([][]uint32, n) // what each node knows of the others
		for i := range known {
			known[i] = make([]uint32, n)
		}
		agree := func(i int) (changed bool) {
			before := own[i]
			own[i] = AgreeVNI(own[i], known[i])
			return own[i] != before
		}
		for range rapid.IntRange(0, 30).Draw(t, "steps") {
			from, to := rapid.IntRange(0, n-1).Draw(t, "from"), rapid.IntRange(0, n-1).Draw(t, "to")
			if from != to {
				known[to][from] = own[from]
				agree(to)
			}
		}
		for changed, rounds := true, 0; changed; rounds++ { // from here on, all news arrive
			if rounds > n+1 {
				t.Fatalf("still changing: %v", own)
			}
			changed = false
			for from := range n {
				for to := range n {
					if from != to {
						known[to][from] = own[from]
					}
				}
			}
			for i := range n {
				changed = agree(i) || changed
			}
		}
		for _, v := range own {
			if v != own[0] {
				t.Fatalf("different VNIs: %v", own)
			}
		}
	})
}

func TestRandomVNI(t *testing.T) {
	seen := map[uint32]bool{}
	for range 1000 {
		v := RandomVNI()
		if v == 0 || v > MaxVNI || v == wellKnownVNI {
			t.Fatalf("VNI %d", v)
		}
		seen[v] = true
	}
	if len(seen) < 990 {
		t.Errorf("only %d of 1000 differ", len(seen))
	}
}
