package sample

import (
	"math"
	"testing"
)

func TestQuantile(t *testing.T) {
	for _, c := range []struct {
		values []float64
		q      float64
		want   float64
	}{
		{[]float64{3}, 0.5, 3},
		{[]float64{3, 1}, 0.5, 2},
		{[]float64{5, 1, 3}, 0.5, 3},
		{[]float64{4, 1, 3, 2}, 0.5, 2.5},
		{[]float64{1, 2, 3, 4, 5}, 0.9, 4.6},
		{[]float64{1, 2, 3, 4, 5}, 0, 1},
		{[]float64{1, 2, 3, 4, 5}, 1, 5},
	} {
		if got := Quantile(c.values, c.q); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("Quantile(%v, %v) = %v, want %v", c.values, c.q, got, c.want)
		}
	}
	if got := Quantile(nil, 0.5); !math.IsNaN(got) {
		t.Errorf("Quantile of nothing = %v", got)
	}
}

func TestQuantileDoesNotChangeItsArgument(t *testing.T) {
	values := []float64{3, 1, 2}
	Quantile(values, 0.5)
	if values[0] != 3 || values[1] != 1 {
		t.Errorf("changed to %v", values)
	}
}

// one returns a sample with one figure.
func one(round int, driver string, v float64) Sample {
	return Sample{Round: round, Driver: driver, Load: "tcp1", Values: Values{Gbps: v}}
}

func TestRatioIsWithinARound(t *testing.T) {
	r := Results{Samples: []Sample{
		one(1, "vxlan", 10), one(1, "weft", 5), // 0.5
		one(2, "vxlan", 30), one(2, "weft", 9), // 0.3: a median of medians would be 9/20
		one(3, "weft", 100),                    // vxlan is missing
		one(4, "vxlan", 10), one(4, "weft", 4), // 0.4
		{Round: 5, Driver: "weft", Load: "tcp1", Values: Values{Gbps: 1}, Error: "failed"},
		one(5, "vxlan", 10),
	}}
	if got, want := r.Ratio("weft", "vxlan", "tcp1", Gbps), (Spread{0.4, 0.3, 0.5, 3}); got != want {
		t.Errorf("Ratio = %+v, want %+v", got, want)
	}
	if got, want := r.Of("weft", "tcp1", Gbps), (Spread{7, 4, 100, 4}); got != want {
		t.Errorf("Of = %+v, want %+v", got, want)
	}
	if got := r.Ratio("tinc", "vxlan", "tcp1", Gbps); got.N != 0 {
		t.Errorf("Ratio of a missing driver = %+v", got)
	}
}
