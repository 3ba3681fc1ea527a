package load

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"time"

	"weft/bench/lab"
	"weft/bench/sample"
)

// pingEvery is the time between echo requests: short, to get many, but long enough for a CPU to become idle in between.
const pingEvery = 2 * time.Millisecond

// pingTime matches the round-trip time in a line of ping.
var pingTime = regexp.MustCompile(`time=([0-9.]+) ms`)

// parsePing returns the round-trip times in the output of ping, in microseconds.
func parsePing(text []byte) ([]float64, error) {
	var trips []float64
	for line := range bytes.Lines(text) {
		m := pingTime.FindSubmatch(line)
		if m == nil {
			continue
		}
		ms, err := strconv.ParseFloat(string(m[1]), 64)
		if err != nil {
			return nil, fmt.Errorf("load: ping printed %q: %w", line, err)
		}
		trips = append(trips, ms*1000)
	}
	if len(trips) == 0 {
		return nil, errors.New("load: ping received no answer")
	}
	return trips, nil
}

// ping sends echo requests for the given time and returns the percentiles of the round-trip times.
func ping(ctx context.Context, from, to lab.End, seconds int) (sample.Values, error) {
	count := seconds * int(time.Second/pingEvery)
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+10*time.Second)
	defer cancel()
	out, err := from.Command(ctx, "ping", "-n", "-i", fmt.Sprint(pingEvery.Seconds()), "-c", strconv.Itoa(count),
		"-w", strconv.Itoa(seconds+1), to.Addr.String()).Output()
	trips, parseErr := parsePing(out)
	if parseErr != nil {
		return nil, errors.Join(parseErr, err) // the exit code of ping alone is no error: it may mean that some packets were lost
	}
	return percentiles(trips), nil
}

// percentiles returns the percentiles of round-trip times in microseconds.
func percentiles(trips []float64) sample.Values {
	return sample.Values{
		sample.P50: sample.Quantile(trips, 0.5),
		sample.P90: sample.Quantile(trips, 0.9),
		sample.P99: sample.Quantile(trips, 0.99),
	}
}
