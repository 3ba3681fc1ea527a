package load

import (
	"context"
	"fmt"
	"math"
	"time"

	"weft/bench/lab"
	"weft/bench/probe"
	"weft/bench/sample"
)

// tolerated is the loss up to which a rate counts as carried.
const tolerated = 0.01

// fixedRate is what the load of a given rate sends, in datagrams a second: little enough for every driver.
const fixedRate = 20_000

// udpLoads are the loads of datagrams.
func udpLoads() []Load {
	return []Load{
		searchLoad("udp64", 64),
		searchLoad("udp1400", 1400),
		floodLoad(),
		fixedLoad(),
	}
}

// searchLoad returns a load that looks for the highest rate with less than 1 % loss.
func searchLoad(name string, size int) Load {
	return Load{
		Name: name, Summary: fmt.Sprintf("UDP of %d bytes: the highest rate with less than 1 %% lost, by bisection", size),
		Shape: lab.Pair, Headline: sample.Kpps,
		Run: func(ctx context.Context, e *Env) (Outcome, error) {
			flow, err := probe.Open(e.Ends[1], e.Ends[0], size)
			if err != nil {
				return Outcome{}, err
			}
			defer flow.Close()
			step := searchStep(e.Seconds)
			best, err := search(func(rate float64) (probe.Count, error) { return flow.Burst(ctx, rate, step) })
			return Outcome{Values: sample.Values{sample.Kpps: best / 1000}}, err
		},
	}
}

// searchStep returns how long one rate is tried for: the search takes about twice a load's time.
func searchStep(seconds int) time.Duration {
	return min(max(time.Duration(seconds)*time.Second/5, 300*time.Millisecond), time.Second)
}

// Bounds of a search.
const (
	searchStart = 32_000 // datagrams a second
	searchFloor = 500
	searchSteps = 5    // bisections, each in the middle of the logarithms: to about 2 % of the rate
	achieved    = 0.93 // share of a rate that the sender must reach for it to have been tried
)

// search returns the highest rate at which the receiver got all but 1 %, as it counted. Where the sender cannot go
// further, that is the end.
func search(try func(rate float64) (probe.Count, error)) (best float64, err error) {
	good, bad := 0.0, math.Inf(1)
	for rate := float64(searchStart); math.IsInf(bad, 1) || good == 0; {
		ok, count, err := carried(try, rate)
		if err != nil {
			return 0, err
		}
		switch {
		case ok:
			good, best = rate, max(best, count.Rate())
			if float64(count.Sent) < achieved*rate*count.Elapsed.Seconds() {
				return best, nil
			}
			rate *= 2
		case rate/2 < searchFloor:
			return best, nil
		default:
			bad = rate
			rate /= 2
		}
	}
	for range searchSteps {
		rate := math.Sqrt(good * bad)
		ok, count, err := carried(try, rate)
		if err != nil {
			return 0, err
		}
		if ok {
			good, best = rate, max(best, count.Rate())
		} else {
			bad = rate
		}
	}
	return best, nil
}

// carried reports whether a rate passes. It is tried twice: one hiccup of a shared machine would end the search low.
func carried(try func(rate float64) (probe.Count, error), rate float64) (ok bool, c probe.Count, err error) {
	for range 2 {
		if c, err = try(rate); err != nil {
			return false, c, err
		}
		if c.Lost() < tolerated {
			return true, c, nil
		}
	}
	return false, c, nil
}

// floodLoad returns a load of as many large datagrams as the sender can make.
func floodLoad() Load {
	return Load{
		Name: "udp-flood", Summary: "UDP of 1400 bytes, as many as the sender can: what still arrives", Shape: lab.Pair, Headline: sample.Kpps,
		Run: func(ctx context.Context, e *Env) (Outcome, error) { return burst(ctx, e, 1400, 0) },
	}
}

// fixedLoad returns a load of small datagrams at one rate, for what each costs.
func fixedLoad() Load {
	return Load{
		Name: "udp-20k", Summary: fmt.Sprintf("UDP of 64 bytes, %d a second: loss, and CPU a datagram", fixedRate), Shape: lab.Pair, Headline: sample.Lost,
		Run: func(ctx context.Context, e *Env) (Outcome, error) { return burst(ctx, e, 64, fixedRate) },
	}
}

// burst sends datagrams for the load's time.
func burst(ctx context.Context, e *Env, size int, rate float64) (Outcome, error) {
	flow, err := probe.Open(e.Ends[1], e.Ends[0], size)
	if err != nil {
		return Outcome{}, err
	}
	defer flow.Close()
	c, err := flow.Burst(ctx, rate, time.Duration(e.Seconds)*time.Second)
	if err != nil {
		return Outcome{}, err
	}
	values := sample.Values{
		sample.Kpps: c.Rate() / 1000,
		sample.Lost: c.Lost() * 100,
		sample.Gbps: c.Rate() * float64(size) * 8 / 1e9,
	}
	out := Outcome{Values: values, Packets: c.Received}
	if rate == 0 {
		out.Bytes = c.Received * uint64(size) // at a low rate a GB says nothing
	}
	return out, nil
}
