package meter

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// otherTime returns the CPU time used so far by all processes except this one, its descendants and kernel threads. The
// time of a process includes that of the children it has waited for, so the difference of two calls includes processes
// that started and ended in between.
func otherTime() (time.Duration, error) {
	table, err := processes()
	if err != nil {
		return 0, err
	}
	return otherTimeIn(table, os.Getpid()), nil
}

// processes returns the state of all processes by PID. Processes that end meanwhile are left out.
func processes() (map[int]stat, error) {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil, fmt.Errorf("meter: %w", err)
	}
	table := map[int]stat{}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if s, err := readStat(pid); err == nil {
			table[pid] = s
		}
	}
	return table, nil
}

// otherTimeIn returns the CPU time of the processes in a table that are not self or its descendants. The time that ancestors of
// self have reaped is included: it cannot contain the time of self, which still runs.
func otherTimeIn(table map[int]stat, self int) time.Duration {
	var sum time.Duration
	for pid, s := range table {
		if s.flags&kernelThread == 0 && !descends(table, pid, self) {
			sum += s.own + s.reaped
		}
	}
	return sum
}

// descends reports whether pid is ancestor or one of its descendants.
func descends(table map[int]stat, pid, ancestor int) bool {
	for range len(table) { // the table is not an atomic snapshot, so it may contain a cycle
		if pid == ancestor {
			return true
		}
		s, ok := table[pid]
		if !ok {
			return false
		}
		pid = s.parent
	}
	return false
}
