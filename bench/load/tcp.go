package load

import (
	"context"
	"errors"
	"fmt"
	"time"

	"weft/bench/lab"
	"weft/bench/probe"
	"weft/bench/sample"
	"weft/internal/plural"
)

// firstPort is the port of iperf3. Additional servers at the same end use the next ports.
const firstPort = 5201

// tcpLoads returns the bulk transfers.
func tcpLoads() []Load {
	return []Load{
		bulk("tcp1", "one TCP stream", lab.Pair, 1, false),
		bulk("tcp4", "four TCP streams", lab.Pair, 4, false),
		bulk("tcp16", "sixteen TCP streams", lab.Pair, 16, false),
		bulk("tcp1r", "one TCP stream in the other direction", lab.Pair, 1, true),
		bulk("tcp4r", "four TCP streams in the other direction", lab.Pair, 4, true),
		limited(),
		lossy(),
		far("tcp1-far", 1),
		far("tcp4-far", 4),
		bulk("tcp1-chain", "one TCP stream between hosts with a router in between", lab.Chain, 1, false),
		incast(),
	}
}

// bulk returns a load of one or more TCP streams.
func bulk(name, summary string, shape lab.Shape, streams int, reverse bool) Load {
	return Load{
		Name: name, Summary: summary, Shape: shape, Headline: sample.Gbps,
		Run: func(ctx context.Context, e *Env) (Outcome, error) {
			return transfer(ctx, e, streams, reverse)
		},
	}
}

// transfer sends from the second end to the first, or in the other direction.
func transfer(ctx context.Context, e *Env, streams int, reverse bool) (Outcome, error) {
	s := stream{from: e.Ends[1], to: e.Ends[0], streams: streams, reverse: reverse, seconds: e.Seconds, port: firstPort}
	return s.outcome(ctx)
}

// outcome runs the transfer.
func (s stream) outcome(ctx context.Context) (Outcome, error) {
	got, err := s.run(ctx)
	if err != nil {
		return Outcome{}, err
	}
	return Outcome{
		Values: sample.Values{sample.Gbps: got.bitsPerSecond / 1e9, sample.Retransmits: got.retransmits},
		Bytes:  got.bytes,
	}, nil
}

// lossPerMille is the number of 1,000 packets that the lossy underlay drops.
const lossPerMille = 1

// lossy returns a load of one stream over an underlay that drops packets. Segmentation offloads are disabled on the
// underlay meanwhile, so that it drops single packets and not batches of 45.
func lossy() Load {
	return Load{
		Name: "tcp1-loss", Shape: lab.Pair, Headline: sample.Gbps,
		Summary: fmt.Sprintf("one TCP stream while the underlay, without segmentation offloads, drops %d of 1,000 packets in each direction",
			lossPerMille),
		Run: func(ctx context.Context, e *Env) (_ Outcome, err error) {
			before := e.Lab.IsPlain()
			defer func() {
				ctx := context.WithoutCancel(ctx)
				err = errors.Join(err, e.Lab.Lose(ctx, 0, false), e.Lab.Plain(ctx, before))
			}()
			if err := errors.Join(e.Lab.Plain(ctx, true), e.Lab.Lose(ctx, lossPerMille, false)); err != nil {
				return Outcome{}, err
			}
			return transfer(ctx, e, 1, false)
		},
	}
}

// farDelay is the delay of the long underlay in each direction.
const farDelay = 10 * time.Millisecond

// far returns a load of TCP streams over a long underlay.
func far(name string, streams int) Load {
	return Load{
		Name: name, Shape: lab.Pair, Headline: sample.Gbps,
		Summary: fmt.Sprintf("%s while packets take %v longer in each direction", plural.Count(streams, "TCP stream"), farDelay),
		Run: func(ctx context.Context, e *Env) (_ Outcome, err error) {
			remove, err := probe.DelayLine(ctx, e.Lab, farDelay)
			if err != nil {
				return Outcome{}, err
			}
			defer func() { err = errors.Join(err, remove(context.WithoutCancel(ctx))) }()
			return transfer(ctx, e, streams, false)
		},
	}
}

// limit is the rate of the limited underlay, in Mbit/s: low enough that every driver reaches it.
const limit = 400

// limited returns a load of one stream over a slow underlay, where all drivers have the same throughput and differ only
// in their cost.
func limited() Load {
	return Load{
		Name: "tcp1-400m", Shape: lab.Pair, Headline: sample.Gbps,
		Summary: fmt.Sprintf("one TCP stream over an underlay of %d Mbit/s: the cost of the same traffic", limit),
		Run: func(ctx context.Context, e *Env) (_ Outcome, err error) {
			defer func() { err = errors.Join(err, e.Lab.Limit(context.WithoutCancel(ctx), 0)) }()
			if err := e.Lab.Limit(ctx, limit); err != nil {
				return Outcome{}, err
			}
			return transfer(ctx, e, 1, false)
		},
	}
}

// incast returns a load of two hosts that send to a third at the same time.
func incast() Load {
	return Load{
		Name: "incast", Summary: "two hosts send one TCP stream each to a third", Shape: lab.Three, Headline: sample.Gbps,
		Run: func(ctx context.Context, e *Env) (Outcome, error) {
			var runs []func(context.Context) (Outcome, error)
			for i, from := range e.Ends[1:] {
				s := stream{from: from, to: e.Ends[0], streams: 1, seconds: e.Seconds, port: firstPort + i}
				runs = append(runs, s.outcome)
			}
			outs, err := together(ctx, runs...)
			return sum(outs), err
		},
	}
}
