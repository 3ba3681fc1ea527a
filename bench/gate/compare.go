package gate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"weft/bench/sample"
)

// ErrWorse is wrapped by the error of Outcome.Err if a ratio is worse than the stored one.
var ErrWorse = errors.New("ratios are worse than the stored ones")

// Outcome is the result of a comparison, one line for each ratio.
type Outcome struct {
	// Compared is the number of ratios that were compared.
	Compared int
	// Worse are the ratios beyond their limit, or that could not be measured; Better those beyond it in the other direction.
	Worse, Better []string
	// Busy is the number of samples of the run that other work on the machine disturbed.
	Busy int
	// OtherMachine describes the difference to the machine of the stored ratios; empty if there is none.
	OtherMachine string
}

// Compare compares the medians of a run with the stored ratios. It compares a ratio only if the run included its setting,
// driver, base and load. A ratio that the run included without a figure is worse.
func (f *File) Compare(r *sample.Results) Outcome {
	var o Outcome
	if r.Machine.CPU != f.CPU || r.Machine.Cores != f.Cores {
		o.OtherMachine = fmt.Sprintf("the stored ratios are from another machine: %s, %d cores", f.CPU, f.Cores)
	}
	for _, s := range r.Samples {
		if s.Busy {
			o.Busy++
		}
	}
	for _, q := range f.Ratios {
		settings, err := sample.ParseSettings([]string{q.Setting})
		if err != nil || !included(r, settings[0], q) {
			continue
		}
		o.Compared++
		got := r.In(settings[0]).Ratio(q.Driver, q.Base, q.Load, q.Metric)
		if got.N == 0 {
			o.Worse = append(o.Worse, fmt.Sprintf("%s: not measured, stored %s", q.name(), q.stored()))
			continue
		}
		line := fmt.Sprintf("%s: %.3f x (%.3f–%.3f), stored %s", q.name(), got.Median, got.Min, got.Max, q.stored())
		switch q.judge(got.Median, f.Margin) {
		case worse:
			o.Worse = append(o.Worse, line)
		case better:
			o.Better = append(o.Better, line)
		case within:
		}
	}
	return o
}

// included reports whether a run included the setting, drivers and load of a ratio.
func included(r *sample.Results, s sample.Setting, q Ratio) bool {
	_, driver := r.Find(q.Driver)
	_, base := r.Find(q.Base)
	load := slices.ContainsFunc(r.Loads, func(l sample.Load) bool { return l.Name == q.Load })
	return driver && base && load && slices.Contains(r.Settings(), s)
}

// direction is the position of a ratio relative to a stored spread.
type direction int

const (
	within direction = iota + 1
	worse
	better
)

// judge compares a median with the stored spread, which margin widens on both sides.
func (q Ratio) judge(median, margin float64) direction {
	low, high := median < q.Min*(1-margin), median > q.Max*(1+margin)
	higherIsBetter := q.Metric.Info().HigherIsBetter
	switch {
	case low && higherIsBetter, high && !higherIsBetter:
		return worse
	case low, high:
		return better
	}
	return within
}

// stored returns the stored median and spread as text.
func (q Ratio) stored() string { return fmt.Sprintf("%.3f x (%.3f–%.3f)", q.Median, q.Min, q.Max) }

// Err returns an error that lists the ratios that are worse, or nil. It also returns an error if nothing was compared.
func (o Outcome) Err() error {
	switch {
	case o.Compared == 0:
		return errors.New("gate: the run included no stored ratio: select other settings, drivers or loads, or none")
	case len(o.Worse) > 0:
		return fmt.Errorf("gate: %d of %d %w:\n  %s", len(o.Worse), o.Compared, ErrWorse, strings.Join(o.Worse, "\n  "))
	}
	return nil
}

// Notes returns lines about the comparison that are no failures.
func (o Outcome) Notes() string {
	var b strings.Builder
	if o.OtherMachine != "" {
		b.WriteString("gate: " + o.OtherMachine + "\n")
	}
	if o.Busy > 0 {
		fmt.Fprintf(&b, "gate: other work on the machine disturbed %d samples, which may change ratios\n", o.Busy)
	}
	fmt.Fprintf(&b, "gate: %d of %d ratios are not worse than the stored ones\n", o.Compared-len(o.Worse), o.Compared)
	if len(o.Better) > 0 {
		fmt.Fprintf(&b, "gate: %d ratios are better; a run with --gate-write would store them:\n  %s\n",
			len(o.Better), strings.Join(o.Better, "\n  "))
	}
	return b.String()
}
