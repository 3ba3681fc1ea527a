package load

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"weft/bench/lab"
)

// warmUp is the time in seconds that a stream runs before the measurement.
const warmUp = 1

// iperfGrace is the time that iperf3 may need beyond the measurement: on slow overlays it exchanges the results slowly.
const iperfGrace = 20 * time.Second

// stream is a bulk transfer over TCP.
type stream struct {
	from, to lab.End
	streams  int
	reverse  bool // the server, which is at to, sends
	seconds  int
	port     int
}

// received is the result of a stream.
type received struct {
	bitsPerSecond float64 // at the receiver, without warm-up
	retransmits   float64
	bytes         uint64 // including warm-up
}

// iperfReport has the used fields of iperf3's JSON.
type iperfReport struct {
	Intervals []struct {
		Sum struct {
			Bytes uint64 `json:"bytes"`
		} `json:"sum"`
	} `json:"intervals"`
	End struct {
		Sent struct {
			Retransmits float64 `json:"retransmits"`
		} `json:"sum_sent"`
		Received struct {
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	} `json:"end"`
	Error string `json:"error"`
}

// parseIperf parses the JSON output of iperf3's client.
func parseIperf(text []byte) (received, error) {
	var r iperfReport
	if err := json.Unmarshal(text, &r); err != nil {
		return received{}, fmt.Errorf("load: iperf3's JSON: %w", err)
	}
	if r.Error != "" {
		return received{}, errors.New("load: iperf3: " + r.Error)
	}
	if r.End.Received.BitsPerSecond <= 0 {
		return received{}, errors.New("load: iperf3: no data was received")
	}
	got := received{bitsPerSecond: r.End.Received.BitsPerSecond, retransmits: r.End.Sent.Retransmits}
	for _, i := range r.Intervals {
		got.bytes += i.Sum.Bytes
	}
	return got, nil
}

// run runs the transfer. The congestion control is always cubic.
func (s stream) run(ctx context.Context) (received, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(s.seconds+warmUp)*time.Second+iperfGrace)
	defer cancel()
	stop, err := serve(ctx, s.to, s.port)
	if err != nil {
		return received{}, err
	}
	defer stop()
	args := []string{"iperf3", "--client", s.to.Addr.String(), "--bind", s.from.Addr.String(), "--port", strconv.Itoa(s.port),
		"--congestion", "cubic",
		"--time", strconv.Itoa(s.seconds), "--omit", strconv.Itoa(warmUp), "--parallel", strconv.Itoa(s.streams), "--json"}
	if s.reverse {
		args = append(args, "--reverse")
	}
	out, err := s.from.Command(ctx, args...).Output()
	if err != nil && len(out) == 0 {
		return received{}, fmt.Errorf("load: iperf3: %w", err)
	}
	return parseIperf(out) // the JSON contains the error of a failed transfer
}

// serve starts an iperf3 server for one transfer and returns when it listens. The caller must call stop.
func serve(ctx context.Context, at lab.End, port int) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	server := at.Command(ctx, "iperf3", "--server", "--one-off", "--forceflush", "--bind", at.Addr.String(), "--port", strconv.Itoa(port))
	out, err := server.StdoutPipe()
	if err != nil {
		cancel()
		return nil, fmt.Errorf("load: %w", err)
	}
	if err := server.Start(); err != nil {
		cancel()
		return nil, fmt.Errorf("load: starting iperf3: %w", err)
	}
	lines := bufio.NewReader(out)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			cancel()
			return nil, errors.Join(fmt.Errorf("load: iperf3 does not listen on %s: %w", at.Addr, err), server.Wait())
		}
		if strings.Contains(line, "listening") {
			break
		}
	}
	drained := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, lines)
		close(drained)
	}()
	return func() {
		cancel() // the server has ended with its transfer, or it hangs
		<-drained
		_ = server.Wait()
	}, nil
}
