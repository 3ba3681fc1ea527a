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

// serverPatience is how long iperf3's server may take to listen.
const serverPatience = 5 * time.Second

// iperfReport is the part of iperf3's JSON that is used.
type iperfReport struct {
	End struct {
		Received struct {
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
	} `json:"end"`
	Error string `json:"error"`
}

// stream sends one TCP stream from one namespace to another for the given seconds and returns the rate at which it was
// received, in Gbit/s. The congestion control is cubic, whatever the machine's default.
func stream(ctx context.Context, from, to *nettest.Space, addr netip.Addr, seconds int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(seconds)*time.Second+20*time.Second)
	defer cancel()
	server := to.Command(ctx, "iperf3", "--server", "--one-off")
	if err := server.Start(); err != nil {
		return 0, fmt.Errorf("demo: starting iperf3: %w", err)
	}
	defer func() {
		cancel()
		_ = server.Wait() // killed where it has not ended with the one stream
	}()
	listening, stop := context.WithTimeout(ctx, serverPatience)
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
