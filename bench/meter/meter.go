package meter

import (
	"context"
	"fmt"
	"time"
)

// Reading is what was spent at a moment. Two of them make a Usage.
type Reading struct {
	at      time.Time
	machine machine
	daemons time.Duration
	foreign time.Duration
}

// Usage is what was spent between two readings.
type Usage struct {
	// Elapsed is the time between them.
	Elapsed time.Duration
	// Daemons and Machine are CPU time; the machine's is without that of others' processes.
	Daemons, Machine time.Duration
	// Foreign is how many cores others' work took on average, with what the hypervisor gave to others.
	Foreign float64
}

// Read takes a reading; pids are the daemons.
func Read(pids []int) (Reading, error) {
	var r Reading
	var err error
	if r.foreign, err = foreign(); err != nil {
		return r, err
	}
	if r.machine, err = readMachine(); err != nil {
		return r, err
	}
	if r.daemons, err = CPU(pids); err != nil {
		return r, fmt.Errorf("a daemon is gone: %w", err)
	}
	r.at = time.Now()
	return r, nil
}

// Since returns what was spent since an earlier reading.
func (r Reading) Since(earlier Reading) Usage {
	u := Usage{
		Elapsed: r.at.Sub(earlier.at),
		Daemons: r.daemons - earlier.daemons,
		Machine: r.machine.busy - earlier.machine.busy,
	}
	others := max(r.foreign-earlier.foreign, 0)
	u.Machine = max(u.Machine-others, 0)
	others += r.machine.stolen - earlier.machine.stolen
	if u.Elapsed > 0 && others > 0 { // a process that nobody waited for takes its time with it
		u.Foreign = others.Seconds() / u.Elapsed.Seconds()
	}
	return u
}

// idleWindow is how long the machine must be idle to count as idle.
const idleWindow = 300 * time.Millisecond

// WaitIdle waits until the machine takes less than the given number of cores for 300 ms, the daemons left out since one
// may spin while it has nothing to do, and reports whether it did so before patience ended.
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

// spentIn returns the CPU time that is spent in the coming window by all but the daemons.
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
