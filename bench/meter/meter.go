package meter

import (
	"context"
	"fmt"
	"time"
)

// Reading is a snapshot of the CPU time counters. Since returns the Usage between two of them.
type Reading struct {
	at      time.Time
	machine machine
	daemons time.Duration
	others  time.Duration
}

// Usage is the CPU time used between two readings.
type Usage struct {
	// Elapsed is the time between the readings.
	Elapsed time.Duration
	// Daemons and Machine are CPU times. Machine does not include processes that are not the bench's.
	Daemons, Machine time.Duration
	// OtherCores is the average number of cores used by processes that are not the bench's, including stolen time.
	OtherCores float64
}

// Read returns a reading; pids are the daemons. It fails if a daemon has ended.
func Read(pids []int) (Reading, error) {
	var r Reading
	var err error
	if r.others, err = otherTime(); err != nil {
		return r, err
	}
	if r.machine, err = readMachine(); err != nil {
		return r, err
	}
	if r.daemons, err = CPU(pids); err != nil {
		return r, fmt.Errorf("a daemon has ended: %w", err)
	}
	r.at = time.Now()
	return r, nil
}

// Since returns the usage between an earlier reading and r.
func (r Reading) Since(earlier Reading) Usage {
	u := Usage{
		Elapsed: r.at.Sub(earlier.at),
		Daemons: r.daemons - earlier.daemons,
		Machine: r.machine.busy - earlier.machine.busy,
	}
	others := max(r.others-earlier.others, 0)
	u.Machine = max(u.Machine-others, 0)
	others += r.machine.stolen - earlier.machine.stolen
	if u.Elapsed > 0 && others > 0 { // the sum shrinks when a process ends that its parent does not wait for
		u.OtherCores = others.Seconds() / u.Elapsed.Seconds()
	}
	return u
}

// idleWindow is the time over which WaitIdle measures.
const idleWindow = 300 * time.Millisecond

// WaitIdle waits until the machine uses less than the given number of cores over 300 ms, and reports whether this
// happened before patience ended. The daemons do not count, because a daemon may busy-poll.
func WaitIdle(ctx context.Context, pids []int, cores float64, patience time.Duration) (idle bool, err error) {
	deadline := time.Now().Add(patience)
	for {
		took, err := spentIn(ctx, pids, idleWindow)
		if err != nil {
			return false, err
		}
		if took.Seconds() < cores*idleWindow.Seconds() {
			return true, nil
		}
		if time.Now().After(deadline) {
			return false, nil
		}
	}
}

// spentIn returns the CPU time that everything except the daemons uses in the next window.
func spentIn(ctx context.Context, pids []int, window time.Duration) (time.Duration, error) {
	before, err := Read(pids)
	if err != nil {
		return 0, err
	}
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-time.After(window):
	}
	after, err := Read(pids)
	if err != nil {
		return 0, err
	}
	stolen := after.machine.stolen - before.machine.stolen
	return after.machine.busy - before.machine.busy + stolen - (after.daemons - before.daemons), nil
}
