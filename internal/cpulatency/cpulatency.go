// Package cpulatency keeps the CPUs of this host awake while frames come. An idle CPU sleeps, and takes 2 to 200 µs to wake up: a deep
// C-state on metal, and on a virtual machine an exit to the hypervisor. A round trip between two pods wakes four threads.
//
// The package uses the kernel's request for a CPU latency (Documentation/power/pm_qos_interface.rst), which holds for the whole host,
// and ends with the process:
//
//   - On metal, 2 µs: idle CPUs enter no state deeper than C1, which they leave within 2 µs. They use more power.
//   - On a virtual machine that idles by the cpuidle driver haltpoll, 0: idle CPUs poll for work instead of halting. The hypervisor
//     counts them as busy.
//   - Where the kernel idles without a cpuidle driver, as many virtual machines do, it ignores the request.
//
// Nothing competes with pods for CPU time: the kernel polls only where it has nothing to run.
// See docs/adr/0047-cpu-latency.md.
package cpulatency

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"weft/internal/signal"
)

// ErrIgnored means that the kernel accepts requests and ignores them, as it idles without a cpuidle driver.
var ErrIgnored = errors.New("the kernel idles without a cpuidle driver")

// Paths of the kernel.
const (
	device     = "/dev/cpu_dma_latency"
	driverFile = "/sys/devices/system/cpu/cpuidle/current_driver"
)

// Latencies in microseconds.
const (
	poll      = 0             // idle CPUs do not halt
	shallow   = 2             // C1, the first state in which a CPU halts, takes at most this to leave
	noLatency = 2_000_000_000 // PM_QOS_CPU_LATENCY_DEFAULT_VALUE: no request
)

// granularity is how much later a frame has to come to be noted anew.
const granularity = 250 * time.Microsecond

// request is a request for a CPU latency: the device, or memory in tests.
type request interface {
	// set replaces the requested latency in microseconds.
	set(microseconds int32) error
	close() error
}

// Keeper keeps CPUs awake while frames come. Make it with Open; Run ends it.
type Keeper struct {
	// Constant after Open.
	request request
	driver  string
	latency int32 // while frames come, in microseconds
	wake    signal.Chan

	// Atomic.
	last atomic.Int64 // when the last frame came, in nanoseconds of Unix time, up to granularity too early
	open atomic.Bool  // a window is open, or will be in a moment
}

// Open returns a Keeper that is idle. The error names the cause and wraps ErrIgnored, or that of the operating system.
func Open() (*Keeper, error) {
	driver, err := os.ReadFile(driverFile)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cpulatency: %w", err)
	}
	name := strings.TrimSpace(string(driver))
	latency, err := latencyFor(name)
	if err != nil {
		return nil, err
	}
	r, err := openDevice()
	if err != nil {
		return nil, err
	}
	return newKeeper(r, name, latency), nil
}

// latencyFor returns the latency to request under a cpuidle driver.
func latencyFor(driver string) (microseconds int32, err error) {
	switch driver {
	case "", "none":
		return 0, fmt.Errorf("cpulatency: %w", ErrIgnored)
	case "haltpoll":
		return poll, nil
	default:
		return shallow, nil
	}
}

func newKeeper(r request, driver string, latency int32) *Keeper {
	return &Keeper{request: r, driver: driver, latency: latency, wake: signal.New()}
}

// Driver returns the name of the kernel's cpuidle driver.
func (k *Keeper) Driver() string { return k.driver }

// Latency returns the longest time that a CPU may take to wake up while frames come.
func (k *Keeper) Latency() time.Duration { return time.Duration(k.latency) * time.Microsecond }

// NoteFrames notes that frames came at a time. It is cheap, never waits, and may be called concurrently.
func (k *Keeper) NoteFrames(now time.Time) {
	at := now.UnixNano()
	if since := at - k.last.Load(); since < 0 || since >= int64(granularity) {
		k.last.Store(at)
	}
	if !k.open.Load() && k.open.CompareAndSwap(false, true) {
		k.wake.Set()
	}
}

// Close releases the device of a Keeper that does not run.
func (k *Keeper) Close() error { return k.request.close() }

// Run makes and ends requests until ctx ends, and then releases the device. It returns early with the error of a request.
func (k *Keeper) Run(ctx context.Context) error {
	var w window
	var before int64 // when the last frame of the last window came
	for {
		select {
		case <-ctx.Done():
			return k.request.close()
		case <-k.wake.C():
		}
		w.opened(time.Duration(k.last.Load() - before))
		if err := k.keepAwake(ctx, &w); err != nil {
			return errors.Join(err, k.request.close())
		}
		before = k.last.Load()
		k.open.Store(false)
		if k.last.Load() != before && k.open.CompareAndSwap(false, true) {
			k.wake.Set() // a frame came after the last look, when the window still seemed open
		}
	}
}

// keepAwake makes a request until no frame has come for a window, or ctx ends.
func (k *Keeper) keepAwake(ctx context.Context, w *window) error {
	if err := k.request.set(k.latency); err != nil {
		return err
	}
	timer := time.NewTimer(w.length)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil // the end of the request follows
		case <-timer.C:
		}
		left := w.length - time.Duration(time.Now().UnixNano()-k.last.Load())
		if left <= 0 || left > w.length { // the clock may have been set back
			return k.request.set(noLatency)
		}
		w.extended()
		timer.Reset(left)
	}
}
