package sample

import (
	"math"
	"slices"
)

// Spread summarizes the values of N rounds.
type Spread struct {
	Median, Min, Max float64
	N                int
}

// Summarize returns the spread of the values; N is 0 if there are none.
func Summarize(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	return Spread{Quantile(values, 0.5), slices.Min(values), slices.Max(values), len(values)}
}

// Quantile returns the q-th quantile (0 to 1) of the values, interpolated between neighbors, and NaN for no values. It
// does not change the slice.
func Quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	low := int(at)
	if low+1 >= len(sorted) {
		return sorted[len(sorted)-1]
	}
	return sorted[low] + (at-float64(low))*(sorted[low+1]-sorted[low])
}

// byRound returns the values of a figure by round, without failed samples.
func (r *Results) byRound(driver, load string, m Metric) map[int]float64 {
	values := map[int]float64{}
	for _, s := range r.Samples {
		if v, ok := s.Values[m]; ok && s.Driver == driver && s.Load == load && s.Error == "" {
			values[s.Round] = v
		}
	}
	return values
}

// Of returns the spread of a figure over all rounds.
func (r *Results) Of(driver, load string, m Metric) Spread {
	var values []float64
	for _, v := range r.byRound(driver, load, m) {
		values = append(values, v)
	}
	return Summarize(values)
}

// Ratio returns the spread, over the rounds that have both, of a figure of driver divided by the figure of base in the
// same round. Within a round, other work on the machine affects both.
func (r *Results) Ratio(driver, base, load string, m Metric) Spread {
	bases := r.byRound(base, load, m)
	var ratios []float64
	for round, v := range r.byRound(driver, load, m) {
		if b := bases[round]; b > 0 {
			ratios = append(ratios, v/b)
		}
	}
	return Summarize(ratios)
}
