package load

import (
	"context"
	"maps"
	"time"

	"weft/bench/lab"
	"weft/bench/probe"
	"weft/bench/sample"
)

// connectors is the number of clients that open connections at the same time.
const connectors = 4

// latencyLoads returns the loads that measure response times.
func latencyLoads() []Load {
	return []Load{
		{
			Name: "ping", Summary: "an echo request every 2 ms, without other traffic", Shape: lab.Pair, Headline: sample.P50,
			Run: func(ctx context.Context, e *Env) (Outcome, error) { return pinged(ctx, e, e.Seconds) },
		},
		pingBulk("ping-bulk", "an echo request every 2 ms during one TCP stream", 1),
		pingBulk("ping-bulk4", "an echo request every 2 ms during four TCP streams", 4),
		{
			Name: "rr", Summary: "requests and answers of 64 bytes over one TCP connection, one at a time",
			Shape: lab.Pair, Headline: sample.P50, Run: requests,
		},
		{
			Name: "churn", Summary: "TCP connections with one request and answer of 64 bytes each, four at a time",
			Shape: lab.Pair, Headline: sample.PerSecond, Run: churn,
		},
	}
}

// pingBulk returns a load of echo requests while streams run, after their warm-up.
func pingBulk(name, summary string, streams int) Load {
	return Load{
		Name: name, Summary: summary, Shape: lab.Pair, Headline: sample.P50,
		Run: func(ctx context.Context, e *Env) (Outcome, error) { return pingBeside(ctx, e, streams) },
	}
}

// pingBeside pings while streams run.
func pingBeside(ctx context.Context, e *Env, streams int) (Outcome, error) {
	outs, err := together(ctx,
		func(ctx context.Context) (Outcome, error) { return transfer(ctx, e, streams, false) },
		func(ctx context.Context) (Outcome, error) {
			select {
			case <-ctx.Done():
				return Outcome{}, ctx.Err()
			case <-time.After(warmUp * time.Second):
				return pinged(ctx, e, max(e.Seconds-1, 1)) // ends before the stream
			}
		},
	)
	if err != nil {
		return Outcome{}, err
	}
	bulk, trips := outs[0], outs[1]
	maps.Copy(bulk.Values, trips.Values)
	return bulk, nil
}

// pinged sends echo requests from the second end to the first.
func pinged(ctx context.Context, e *Env, seconds int) (Outcome, error) {
	values, err := ping(ctx, e.Ends[1], e.Ends[0], seconds)
	return Outcome{Values: values}, err
}

// requests sends one request after another over one connection.
func requests(ctx context.Context, e *Env) (Outcome, error) {
	echo, err := probe.Listen(e.Ends[0])
	if err != nil {
		return Outcome{}, err
	}
	defer echo.Close()
	trips, err := probe.Requests(ctx, e.Ends[1], echo.Addr(), time.Duration(e.Seconds)*time.Second)
	if err != nil {
		return Outcome{}, err
	}
	values := percentiles(trips)
	values[sample.PerSecond] = float64(len(trips)) / float64(e.Seconds)
	return Outcome{Values: values}, nil
}

// churn opens and closes connections, with one request each.
func churn(ctx context.Context, e *Env) (Outcome, error) {
	echo, err := probe.Listen(e.Ends[0])
	if err != nil {
		return Outcome{}, err
	}
	defer echo.Close()
	rate, err := probe.Connects(ctx, e.Ends[1], echo.Addr(), connectors, time.Duration(e.Seconds)*time.Second)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{Values: sample.Values{sample.PerSecond: rate}}, nil
}
