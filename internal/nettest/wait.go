package nettest

import (
	"context"
	"fmt"
	"time"
)

// Pauses between two looks of Until: short first, then longer.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// Until calls f again and again until it returns nil or ctx ends; then it returns the last error of f.
func Until(ctx context.Context, f func() error) error {
	pause := firstPause
	for {
		err := f()
		if err == nil {
			return nil
		}
		timer := time.NewTimer(pause)
		select {
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("nettest: %w while waiting: %w", ctx.Err(), err)
		case <-timer.C:
		}
		pause = min(2*pause, lastPause)
	}
}
