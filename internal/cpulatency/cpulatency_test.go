package cpulatency

import (
	"context"
	"errors"
	"os"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"weft/internal/nettest/labtest"
)

// memory is a request in memory.
type memory struct {
	latency atomic.Int32
	changes atomic.Int32
	closed  atomic.Bool
}

func newMemory() *memory {
	m := &memory{}
	m.latency.Store(noLatency)
	return m
}

func (m *memory) set(microseconds int32) error {
	m.latency.Store(microseconds)
	m.changes.Add(1)
	return nil
}

func (m *memory) close() error {
	m.latency.Store(noLatency)
	m.closed.Store(true)
	return nil
}

func (m *memory) effective() (int32, error) { return m.latency.Load(), nil }

// TestRequest: a request holds from set to the next one, and until close.
func TestRequest(t *testing.T) {
	type readable interface {
		request
		effective() (int32, error)
	}
	suite := func(t *testing.T, open func() readable) {
		r, other := open(), open()
		host, err := other.effective() // another program may have a request as well
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []int32{poll, shallow, noLatency, poll} {
			if err := r.set(want); err != nil {
				t.Fatal(err)
			}
			if got, err := r.effective(); err != nil || got != min(want, host) {
				t.Errorf("effective: %d, %v, want %d", got, err, min(want, host))
			}
		}
		if err := r.close(); err != nil {
			t.Fatal(err)
		}
		if got, err := other.effective(); err != nil || got != host {
			t.Errorf("after close: %d, %v", got, err)
		}
		if err := other.close(); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("memory", func(t *testing.T) { suite(t, func() readable { return newMemory() }) })
	t.Run("kernel", func(t *testing.T) {
		labtest.RequireRoot(t)
		if _, err := os.Stat(device); err != nil {
			t.Skip(err) // kernels without CONFIG_CPU_IDLE have none
		}
		suite(t, func() readable {
			r, err := openDevice()
			if err != nil {
				t.Fatal(err)
			}
			return r
		})
	})
}

// runKeeper runs a keeper in a bubble, and calls test.
func runKeeper(t *testing.T, test func(k *Keeper, m *memory)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		k := newKeeper(m, "haltpoll", poll)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error, 1)
		go func() { done <- k.Run(ctx) }()
		test(k, m)
		cancel()
		if err := <-done; err != nil || !m.closed.Load() {
			t.Errorf("run: %v, closed %v", err, m.closed.Load())
		}
	})
}

// frames notes n frames at intervals, and returns how long CPUs were kept awake meanwhile.
func frames(k *Keeper, m *memory, n int, interval time.Duration) (awake time.Duration) {
	const step = 100 * time.Microsecond
	for range n {
		k.NoteFrames(time.Now())
		for range interval / step {
			synctest.Wait()
			if m.latency.Load() == poll {
				awake += step
			}
			time.Sleep(step)
		}
	}
	return awake
}

// TestKeeper: CPUs are awake for nearly all of the time while frames come every few milliseconds, for little of it where they are
// rare, and not at all once a window is over: then nothing is done any more.
func TestKeeper(t *testing.T) {
	for _, c := range []struct {
		interval    time.Duration
		least, most float64 // share of the time awake
	}{
		{500 * time.Microsecond, 0.99, 1},
		{2 * time.Millisecond, 0.99, 1},
		{10 * time.Millisecond, 0.98, 1},
		{20 * time.Millisecond, 0.98, 1},
		{25 * time.Millisecond, 0, 0.05},
		{500 * time.Millisecond, 0, 0.01},
	} {
		t.Run(c.interval.String(), func(t *testing.T) {
			runKeeper(t, func(k *Keeper, m *memory) {
				const n = 200
				share := float64(frames(k, m, n, c.interval)) / float64(n*c.interval)
				if share < c.least || share > c.most {
					t.Errorf("awake for %.3f of the time, want %g to %g", share, c.least, c.most)
				}
				time.Sleep(maxWindow)
				synctest.Wait()
				before := m.changes.Load()
				time.Sleep(time.Hour)
				if m.latency.Load() != noLatency || m.changes.Load() != before {
					t.Error("not idle after the last window")
				}
			})
		})
	}
}

// TestClockSetBack: a window ends although the wall clock says that the last frame is in the future.
func TestClockSetBack(t *testing.T) {
	runKeeper(t, func(k *Keeper, m *memory) {
		k.NoteFrames(time.Now().Add(time.Hour))
		synctest.Wait()
		if m.latency.Load() != poll {
			t.Error("asleep")
		}
		time.Sleep(maxWindow)
		synctest.Wait()
		if m.latency.Load() != noLatency {
			t.Error("still awake")
		}
		frames(k, m, 1, 0)
		synctest.Wait()
		if m.latency.Load() != poll {
			t.Error("asleep after the clock was set back")
		}
	})
}

// TestRunEnds: a request that fails ends Run, and nothing that comes later waits.
func TestRunEnds(t *testing.T) {
	broken := errors.New("broken")
	k := newKeeper(&failing{newMemory(), broken}, "haltpoll", poll)
	k.NoteFrames(time.Now())
	if err := k.Run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("run: %v", err)
	}
	k.NoteFrames(time.Now())
}

type failing struct {
	*memory
	err error
}

func (f *failing) set(int32) error { return f.err }

// TestLatencyFor: what is requested follows from the driver.
func TestLatencyFor(t *testing.T) {
	for driver, want := range map[string]int32{"haltpoll": poll, "intel_idle": shallow, "acpi_idle": shallow, "psci_idle": shallow} {
		if got, err := latencyFor(driver); err != nil || got != want {
			t.Errorf("%s: %d, %v", driver, got, err)
		}
	}
	for _, driver := range []string{"", "none"} {
		if _, err := latencyFor(driver); !errors.Is(err, ErrIgnored) {
			t.Errorf("%q: %v", driver, err)
		}
	}
}

// BenchmarkNoteFrames is the cost for a loop of the datapath, once a batch.
func BenchmarkNoteFrames(b *testing.B) {
	k := newKeeper(newMemory(), "haltpoll", poll)
	k.open.Store(true)
	b.RunParallel(func(p *testing.PB) {
		now := time.Now()
		for p.Next() {
			now = now.Add(10 * time.Microsecond)
			k.NoteFrames(now)
		}
	})
}
