package meter

import (
	"os"
	"os/exec"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestCountersIncludeExistingAndLaterThreads(t *testing.T) {
	events, missing := Countable()
	if len(events)+len(missing) != len(Events()) {
		t.Errorf("%v and %v", events, missing)
	}
	if why := missing[ContextSwitches]; why != "" {
		t.Skip("context switches cannot be counted: " + why)
	}
	c, err := OpenCounters([]int{os.Getpid()}, []Event{ContextSwitches})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// A process that sleeps switches at least once for each sleep; it is a child of a thread with a counter.
	const sleeps = 5
	if err := exec.Command("sh", "-c", "for i in 1 2 3 4 5; do sleep 0.01; done").Run(); err != nil {
		t.Fatal(err)
	}
	for range sleeps {
		_ = unix.Nanosleep(&unix.Timespec{Nsec: int64(time.Millisecond)}, nil)
	}
	counts, err := c.Read()
	if err != nil || counts[ContextSwitches] < 2*sleeps {
		t.Errorf("counts %v, %v", counts, err)
	}
}

func TestCountersOfNoProcess(t *testing.T) {
	if _, err := OpenCounters([]int{1 << 30}, nil); err == nil {
		t.Error("a process that does not exist has counters")
	}
}
