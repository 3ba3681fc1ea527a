package daemon

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// niceness is what a node runs at. In the kernel, packets are carried before any process runs; here the process that
// carries them must be let in before those that only wait for them (docs/adr/0008-before-the-pods.md has the figures).
const niceness = -10

// raisePriority lets all threads of the process run before those of pods; threads to come inherit it. A process that may
// not do that (CAP_SYS_NICE) runs on as it is.
func raisePriority() error {
	raised := map[int]bool{}
	for before := -1; len(raised) > before; { // again: one that was not raised yet may have started another meanwhile
		before = len(raised)
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("daemon: priority: %w", err)
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil || raised[id] {
				continue
			}
			// Per thread: Linux has no priority of a process. One that has just ended needs none.
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, niceness); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("daemon: priority %d: %w", niceness, err)
			}
			raised[id] = true
		}
	}
	return nil
}
