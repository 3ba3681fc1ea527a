package load

import (
	"context"
	"fmt"
	"maps"

	"weft/bench/lab"
	"weft/bench/sample"
)

// MixedName is the load of all kinds of traffic at once.
const MixedName = "mixed"

// mixed returns a load for long runs, such as --seconds 600, in which the harness watches the memory of the daemons.
func mixed() Load {
	return Load{
		Name: MixedName, Shape: lab.Pair, Once: true, Headline: sample.Gbps,
		Summary: fmt.Sprintf("three TCP streams, one of them backward, UDP of 64 bytes, %d per second, and ping at once", fixedRate),
		Run: func(ctx context.Context, e *Env) (Outcome, error) {
			there := stream{from: e.Ends[1], to: e.Ends[0], streams: 2, seconds: e.Seconds, port: firstPort}
			back := stream{from: e.Ends[1], to: e.Ends[0], streams: 1, reverse: true, seconds: e.Seconds, port: firstPort + 1}
			outs, err := together(ctx,
				there.outcome,
				back.outcome,
				func(ctx context.Context) (Outcome, error) { return burst(ctx, e, 64, fixedRate) },
				func(ctx context.Context) (Outcome, error) { return pinged(ctx, e, e.Seconds) },
			)
			if err != nil {
				return Outcome{}, err
			}
			out := sum(outs[:2])
			out.Values[sample.Lost] = outs[2].Values[sample.Lost]
			maps.Copy(out.Values, outs[3].Values)
			return out, nil
		},
	}
}
