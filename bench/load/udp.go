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

// tolerated is the share of lost datagrams below which a rate counts as carried.
const tolerated = 0.01

// fixedRate is the rate of fixedLoad, in datagrams per second: low enough for every driver.
const fixedRate = 20_000

// udpLoads returns the loads of UDP datagrams.
func udpLoads() []Load {
	return []Load{
		searchLoad("udp64", 64),
		searchLoad("udp1400", 1400),
		floodLoad(),
		fixedLoad(),
	}
}

// searchLoad returns a load that searches the highest rate with less than 1 % loss.
func searchLoad(name string, size int) Load {
	return Load{
		Name: name, Summary: fmt.Sprintf("UDP of %d bytes: the highest rate with less than 1 %% loss, by bisection", size),
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

// searchStep returns the duration of one try, chosen so that the search takes about twice the time of another load.
func searchStep(seconds int) time.Duration {
	return min(max(time.Duration(seconds)*time.Second/5, 300*time.Millisecond), time.Second)
}

// Parameters of a search.
const (
	searchStart = 32_000 // first rate, in datagrams per second
	searchFloor = 500    // the search gives up below this rate
	searchSteps = 5      // bisections at the geometric mean, for a precision of about 2 %
	achieved    = 0.93   // a try is valid if the sender reaches this share of the rate
)

// search returns the highest receive rate with less than 1 % loss. It ends early if the sender cannot send faster.
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

// carried reports whether a rate passes with tolerated loss. It tries twice, because one hiccup of a shared machine would
// make the result of the search too low.
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

// floodLoad returns a load that sends large datagrams as fast as possible.
func floodLoad() Load {
	return Load{
		Name: "udp-flood", Summary: "UDP of 1400 bytes as fast as the sender can: how much arrives", Shape: lab.Pair, Headline: sample.Kpps,
		Run: func(ctx context.Context, e *Env) (Outcome, error) { return burst(ctx, e, 1400, 0) },
	}
}

// fixedLoad returns a load of small datagrams at a fixed rate, which shows the cost of each.
func fixedLoad() Load {
	return Load{
		Name: "udp-20k", Summary: fmt.Sprintf("UDP of 64 bytes, %d per second: loss, and CPU per datagram", fixedRate),
		Shape: lab.Pair, Headline: sample.Lost,
		Run: func(ctx context.Context, e *Env) (Outcome, error) { return burst(ctx, e, 64, fixedRate) },
	}
}

// burst sends datagrams at a rate (0: as fast as possible) for the duration of the load.
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
		out.Bytes = c.Received * uint64(size) // at a low rate, CPU time per GB has no meaning
	}
	return out, nil
}
