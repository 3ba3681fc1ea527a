package meter

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// machine is the CPU time of the whole machine since its start, summed over all cores.
type machine struct {
	busy   time.Duration // all except idle, waiting for I/O, and stolen
	stolen time.Duration // used by the hypervisor for others
}

// parseMachine parses the first line of /proc/stat (proc_stat(5)): user, nice, system, idle, iowait, irq, softirq, steal.
// The guest times after these are already included in user and nice.
func parseMachine(text string) (machine, error) {
	line, _, _ := strings.Cut(text, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return machine{}, errStat
	}
	var v [8]time.Duration
	for i := range v {
		n, err := strconv.ParseInt(f[i+1], 10, 64)
		if err != nil {
			return machine{}, fmt.Errorf("meter: /proc/stat: %w", err)
		}
		v[i] = time.Duration(n) * tick
	}
	return machine{busy: v[0] + v[1] + v[2] + v[5] + v[6], stolen: v[7]}, nil
}

func readMachine() (machine, error) {
	b, err := os.ReadFile("/proc/stat")
	if err != nil {
		return machine{}, fmt.Errorf("meter: %w", err)
	}
	return parseMachine(string(b))
}
