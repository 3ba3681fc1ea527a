package load

import (
	"context"

	"golang.org/x/sync/errgroup"

	"weft/bench/sample"
)

// together runs all functions at the same time and returns their outcomes in order. The first error ends the others.
func together(ctx context.Context, runs ...func(context.Context) (Outcome, error)) ([]Outcome, error) {
	outs := make([]Outcome, len(runs))
	group, ctx := errgroup.WithContext(ctx)
	for i, run := range runs {
		group.Go(func() (err error) {
			outs[i], err = run(ctx)
			return err
		})
	}
	return outs, group.Wait()
}

// sum returns the outcome of transfers that ran at the same time.
func sum(outs []Outcome) Outcome {
	all := Outcome{Values: sample.Values{}}
	for _, out := range outs {
		all.Bytes += out.Bytes
		for m, v := range out.Values {
			all.Values[m] += v
		}
	}
	return all
}
