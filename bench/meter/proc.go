// Package meter reads the CPU time and memory of processes and of the machine from /proc, and the CPU time of processes
// that do not belong to the caller. It also counts scheduling and cache events of processes.
package meter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// kernelThread is PF_KTHREAD, the bit in the flags of a process that marks a kernel thread.
const kernelThread = 0x00200000

// stat has the used fields of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	parent int
	flags  uint64
	own    time.Duration // user and system time of all threads
	reaped time.Duration // user and system time of children that it has waited for
	rss    int64         // in pages
}

var errStat = errors.New("meter: unknown format of stat")

// parseStat parses a line of /proc/PID/stat. The second field is the name of the program in parentheses. It may contain
// any character, so the third field starts after the last parenthesis.
func parseStat(b []byte) (stat, error) {
	end := bytes.LastIndexByte(b, ')')
	if end < 0 {
		return stat{}, errStat
	}
	f := strings.Fields(string(b[end+1:])) // f[0] is field 3, the state
	if len(f) < 22 {
		return stat{}, errStat
	}
	var numbers [22]int64
	for _, i := range []int{1, 6, 11, 12, 13, 14, 21} {
		n, err := strconv.ParseInt(f[i], 10, 64)
		if err != nil {
			return stat{}, fmt.Errorf("meter: field %d of stat: %w", i+3, err)
		}
		numbers[i] = n
	}
	return stat{
		parent: int(numbers[1]),
		flags:  uint64(numbers[6]),
		own:    time.Duration(numbers[11]+numbers[12]) * tick,
		reaped: time.Duration(numbers[13]+numbers[14]) * tick,
		rss:    numbers[21],
	}, nil
}

// readStat reads the stat of a process.
func readStat(pid int) (stat, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return stat{}, fmt.Errorf("meter: %w", err)
	}
	return parseStat(b)
}

// CPUWithChildren returns the CPU time of the threads of a process, as the scheduler counts it, in nanoseconds, and that of the children
// that it has waited for. Threads that have ended are not part of it.
func CPUWithChildren(pid int) (time.Duration, error) {
	s, err := readStat(pid)
	if err != nil {
		return 0, err
	}
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err != nil {
		return 0, fmt.Errorf("meter: %w", err)
	}
	sum := s.reaped
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		var own int64
		if _, err := fmt.Sscan(string(text), &own); err != nil {
			return 0, fmt.Errorf("meter: %s: %w", path, err)
		}
		sum += time.Duration(own)
	}
	return sum, nil
}

// CPU returns the sum of user and system time of the processes so far, including all threads. It includes the kernel's
// work on packets inside their system calls, but not in interrupts.
func CPU(pids []int) (time.Duration, error) {
	var sum time.Duration
	for _, pid := range pids {
		s, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		sum += s.own
	}
	return sum, nil
}
