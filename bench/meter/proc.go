// Package meter reads from /proc what processes and the machine spend: CPU time, memory, and the CPU time of work that is not
// the caller's.
package meter

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// tick is the unit of CPU times in /proc: USER_HZ is 100 on every Linux that Go runs on.
const tick = 10 * time.Millisecond

// kernelThread is PF_KTHREAD, the bit of a process's flags that marks a thread of the kernel.
const kernelThread = 0x00200000

// stat is what is used of /proc/PID/stat (proc_pid_stat(5)).
type stat struct {
	parent int
	flags  uint64
	own    time.Duration // user and system time of all threads
	reaped time.Duration // the same of children that have been waited for
	rss    int64         // in pages
}

var errStat = errors.New("meter: unknown form of stat")

// parseStat parses a line of /proc/PID/stat. The second field is the program's name in parentheses, which may have any
// character in it, so the rest starts after the last one.
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

// CPU returns the user and system time that the processes have spent so far, all threads together. It includes what the
// kernel did for packets inside their system calls, but not what it did in interrupts.
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

// RSS returns the resident memory of the largest of the processes, in bytes; 0 where there are none.
func RSS(pids []int) (int64, error) {
	var largest int64
	for _, pid := range pids {
		s, err := readStat(pid)
		if err != nil {
			return 0, err
		}
		largest = max(largest, s.rss*int64(os.Getpagesize()))
	}
	return largest, nil
}
