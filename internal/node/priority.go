package node

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// niceness is the nice value of a node. The kernel carries packets before any process runs; the process that carries them in
// userspace must run before those that only wait for them. See docs/adr/0008-daemon-priority.md for figures.
const niceness = -10

// raisePriority makes all threads of the process run before those of pods; later threads inherit it. It fails for a process
// without CAP_SYS_NICE, which works at its old priority.
func raisePriority() error {
	raised := map[int]bool{}
	for before := -1; len(raised) > before; { // repeat: a thread that was not raised yet may have started another one
		before = len(raised)
		threads, err := os.ReadDir("/proc/self/task")
		if err != nil {
			return fmt.Errorf("node: priority: %w", err)
		}
		for _, thread := range threads {
			id, err := strconv.Atoi(thread.Name())
			if err != nil || raised[id] {
				continue
			}
			// Per thread: Linux has no priority of a process. A thread that has just ended is skipped.
			if err := unix.Setpriority(unix.PRIO_PROCESS, id, niceness); err != nil && !errors.Is(err, unix.ESRCH) {
				return fmt.Errorf("node: priority %d: %w", niceness, err)
			}
			raised[id] = true
		}
	}
	return nil
}
