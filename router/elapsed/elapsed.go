// Package elapsed measures times in state machines that have the time as an argument, so that these go on when a clock is set back.
package elapsed

import "time"

// never is longer than every time that a state machine waits for.
const never = time.Hour

// Since returns the time from at until now. The zero time was long ago, and so was a time in the future: the clock was set back.
func Since(at, now time.Time) time.Duration {
	if d := now.Sub(at); !at.IsZero() && d >= 0 {
		return d
	}
	return never
}
