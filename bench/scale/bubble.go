package scale

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// inVirtualTime runs f in a bubble of testing/synctest: there, time passes only while all goroutines wait. All that f starts must have
// ended when it returns, and f must not wait for channels from outside.
func inVirtualTime(f func() error) (err error) {
	// A zero T suffices. Only a failure of the T would need more of it, and f reports errors itself.
	synctest.Test(new(testing.T), func(*testing.T) { err = f() })
	return err
}

// sleepUntil sleeps until the virtual time at, and returns the error of ctx if that has ended. ctx is of outside the bubble, so no
// goroutine may wait for it.
func sleepUntil(ctx context.Context, at time.Time) error {
	time.Sleep(time.Until(at))
	return ctx.Err()
}
