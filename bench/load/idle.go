package load

import (
	"context"
	"time"

	"weft/bench/lab"
	"weft/bench/sample"
)

// IdleName is the load that does nothing.
const IdleName = "idle"

// idle returns a load that only waits, while the harness measures the daemons.
func idle() Load {
	return Load{
		Name: IdleName, Summary: "no traffic: CPU time and memory of idle daemons", Shape: lab.Pair, Headline: sample.RSS,
		Run: func(ctx context.Context, e *Env) (Outcome, error) {
			select {
			case <-ctx.Done():
				return Outcome{}, ctx.Err()
			case <-time.After(time.Duration(e.Seconds) * time.Second):
				return Outcome{Values: sample.Values{}}, nil
			}
		},
	}
}
