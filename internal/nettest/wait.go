package nettest

import (
	"context"
	"fmt"
	"time"
)

// Pauses between two calls of Until. They double from the first to the last.
const (
	firstPause = 5 * time.Millisecond
	lastPause  = 100 * time.Millisecond
)

// Until calls f repeatedly until it returns nil. If ctx ends first, it returns an error that wraps the error of ctx and
// the last error of f.
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
