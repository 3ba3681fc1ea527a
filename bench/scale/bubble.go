package scale

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

// inVirtualTime runs f in a bubble of testing/synctest: there, time passes only while all goroutines wait. All that f starts must have
// ended when it returns, and f must not wait for channels from outside.
func inVirtualTime(f func(outside worker) error) (err error) {
	outside := worker{make(chan func()), make(chan struct{})}
	defer close(outside.jobs)
	go outside.work()
	// A zero T suffices. Only a failure of the T would need more of it, and f reports errors itself.
	synctest.Test(new(testing.T), func(*testing.T) { err = f(outside) })
	return err
}

// worker is a goroutine outside the bubble. A goroutine of the runtime that never waits in a way that the bubble recognizes, as that of
// a CPU profile, would stop the time there.
type worker struct {
	jobs chan func()
	done chan struct{}
}

func (w worker) work() {
	for job := range w.jobs {
		job()
		w.done <- struct{}{}
	}
}

// do runs f outside the bubble and waits for it, while no virtual time passes.
func (w worker) do(f func()) {
	w.jobs <- f
	<-w.done
}

// sleepUntil sleeps until the virtual time at, and returns the error of ctx if that has ended. ctx is of outside the bubble, so no
// goroutine may wait for it.
func sleepUntil(ctx context.Context, at time.Time) error {
	time.Sleep(time.Until(at))
	return ctx.Err()
}
