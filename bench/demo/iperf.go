package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"weft/internal/nettest"
)

// serverTimeout bounds the time until iperf3's server listens.
const serverTimeout = 5 * time.Second

// iperfReport has the used fields of iperf3's JSON.
type iperfReport struct {
	End struct {
		Received struct {
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	} `json:"end"`
	Error string `json:"error"`
}

// stream sends one TCP stream from one namespace to another for the given number of seconds and returns the receive
// rate, in Gbit/s. The congestion control is always cubic.
func stream(ctx context.Context, from, to *nettest.Space, addr netip.Addr, seconds int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+20*time.Second)
	defer cancel()
	server := to.Command(ctx, "iperf3", "--server", "--one-off")
	if err := server.Start(); err != nil {
		return 0, fmt.Errorf("demo: starting iperf3: %w", err)
	}
	defer func() {
		cancel()
		_ = server.Wait() // cancel has killed it if it did not end after the stream
	}()
	listening, stop := context.WithTimeout(ctx, serverTimeout)
	defer stop()
	err := nettest.Until(listening, func() error {
		_, err := to.Run(listening, "sh", "-c", "ss -Hltn 'sport = :5201' | grep -q .")
		return err
	})
	if err != nil {
		return 0, err
	}
	out, err := from.Command(ctx, "iperf3", "--client", addr.String(), "--congestion", "cubic",
		"--time", strconv.Itoa(seconds), "--json").Output()
	var report iperfReport
	if jsonErr := json.Unmarshal(out, &report); jsonErr != nil || report.Error != "" {
		return 0, fmt.Errorf("demo: iperf3: %s: %w", report.Error, err)
	}
	return report.End.Received.BitsPerSecond / 1e9, err
}
