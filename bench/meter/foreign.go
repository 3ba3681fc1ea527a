package meter

import (
	"fmt"
	"os"
	"strconv"
	"time"
)

// foreign returns the CPU time, so far, of processes that are neither this one, nor descend from it, nor belong to the
// kernel. The time of children that a process has waited for counts with it, so what starts and ends between two calls
// is seen in their difference.
func foreign() (time.Duration, error) {
	table, err := processes()
	if err != nil {
		return 0, err
	}
	return foreignIn(table, os.Getpid()), nil
}

// processes reads the table of processes; those that end meanwhile are left out.
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

// foreignIn sums up the times in a table of processes that do not descend from self. What self's ancestors have reaped
// is counted: self does not run while they would reap it.
func foreignIn(table map[int]stat, self int) time.Duration {
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
	for range len(table) { // the table is no snapshot: it might have a circle
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
