package meter

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Event is the name of an event that the kernel counts, as perf-list(1) prints it.
type Event string

// Events that Counters counts.
const (
	ContextSwitches Event = "context-switches"
	CPUMigrations   Event = "cpu-migrations"
	CacheMisses     Event = "cache-misses"
)

// Events returns all events that Counters may count.
func Events() []Event { return []Event{ContextSwitches, CPUMigrations, CacheMisses} }

// eventCodes are the type and config of struct perf_event_attr for each event.
var eventCodes = map[Event]struct {
	kind   uint32
	config uint64
}{
	ContextSwitches: {unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CONTEXT_SWITCHES},
	CPUMigrations:   {unix.PERF_TYPE_SOFTWARE, unix.PERF_COUNT_SW_CPU_MIGRATIONS},
	CacheMisses:     {unix.PERF_TYPE_HARDWARE, unix.PERF_COUNT_HW_CACHE_MISSES},
}

// Counters count events of processes (perf_event_open(2)). They are for one goroutine at a time.
type Counters struct {
	files map[Event][]int
}

// OpenCounters starts counting the given events of processes, with their threads and the threads and children that these
// start later. The caller must close the counters.
func OpenCounters(pids []int, events []Event) (*Counters, error) {
	c := &Counters{files: map[Event][]int{}}
	for _, pid := range pids {
		if err := c.openProcess(pid, events); err != nil {
			c.Close()
			return nil, err
		}
	}
	return c, nil
}

// openProcess opens counters for each thread of a process. A counter includes threads that its thread starts later. A
// thread that starts between the listing and the opening of its parent's counter is not counted.
func (c *Counters) openProcess(pid int, events []Event) error {
	threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return fmt.Errorf("meter: %w", err)
	}
	for _, t := range threads {
		tid, err := strconv.Atoi(t.Name())
		if err != nil {
			continue
		}
		if err := c.openThread(tid, events); err != nil && !errors.Is(err, unix.ESRCH) { // ESRCH: the thread has ended
			return err
		}
	}
	return nil
}

func (c *Counters) openThread(tid int, events []Event) error {
	for _, e := range events {
		fd, err := openEvent(tid, e)
		if err != nil {
			return err
		}
		c.files[e] = append(c.files[e], fd)
	}
	return nil
}

// openEvent opens one counter of one thread. It counts in the kernel and in userspace.
func openEvent(tid int, e Event) (fd int, err error) {
	code := eventCodes[e]
	attr := unix.PerfEventAttr{
		Type: code.kind, Config: code.config, Size: uint32(unsafe.Sizeof(unix.PerfEventAttr{})), Bits: unix.PerfBitInherit,
		Read_format: unix.PERF_FORMAT_TOTAL_TIME_ENABLED | unix.PERF_FORMAT_TOTAL_TIME_RUNNING,
	}
	fd, err = unix.PerfEventOpen(&attr, tid, -1, -1, unix.PERF_FLAG_FD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("meter: counting %s: %w", e, err)
	}
	return fd, nil
}

// Read returns the counts since OpenCounters.
func (c *Counters) Read() (map[Event]uint64, error) {
	counts := map[Event]uint64{}
	for e, files := range c.files {
		for _, fd := range files {
			n, err := readEvent(fd)
			if err != nil {
				return nil, fmt.Errorf("meter: reading %s: %w", e, err)
			}
			counts[e] += n
		}
	}
	return counts, nil
}

// readEvent reads a counter. If the hardware counted for a part of the time only, because it has fewer counters than are
// open, the count is scaled to the whole time.
func readEvent(fd int) (uint64, error) {
	var buf [24]byte // the value, the time that the counter was enabled, and the time that it counted
	if _, err := unix.Read(fd, buf[:]); err != nil {
		return 0, err
	}
	value := binary.NativeEndian.Uint64(buf[0:])
	enabled, running := binary.NativeEndian.Uint64(buf[8:]), binary.NativeEndian.Uint64(buf[16:])
	if running == 0 || running >= enabled {
		return value, nil
	}
	return uint64(float64(value) * float64(enabled) / float64(running)), nil
}

// Close ends the counting. It may be called more than once.
func (c *Counters) Close() {
	for _, files := range c.files {
		for _, fd := range files {
			_ = unix.Close(fd)
		}
	}
	c.files = nil
}

// Countable returns the events that this machine can count, and the reasons why it cannot count the others.
func Countable() (events []Event, missing map[Event]string) {
	missing = map[Event]string{}
	for _, e := range Events() {
		c, err := OpenCounters([]int{os.Getpid()}, []Event{e})
		if err != nil {
			missing[e] = reason(err)
			continue
		}
		c.Close()
		events = append(events, e)
	}
	return events, missing
}

// reason explains an error of perf_event_open(2) for people.
func reason(err error) string {
	switch {
	case errors.Is(err, unix.ENOENT), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.ENODEV):
		return "the machine has no counter for it, as many virtual machines"
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return "the kernel does not permit it"
	case errors.Is(err, unix.ENOSYS):
		return "the kernel has no performance events"
	}
	return err.Error()
}
