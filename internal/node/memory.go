package node

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// gcPercent is how much garbage may exist beside live memory, in percent: a quarter of Go's default. Carrying frames allocates nothing,
// so it costs hardly any time, and leaves more memory to the pods.
const gcPercent = 25

// limitGarbage sets gcPercent, unless the operator has set GOGC.
func limitGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// startupLasts is how long after the datapath is up the code that only starting needs is still used.
const startupLasts = 2 * time.Second

// releaseStartup gives back the memory that only starting has needed: garbage, and the pages of the program, half of which are never used
// again. Pages that are used again come back from the page cache, or from the disk.
func (n *node) releaseStartup(ctx context.Context) {
	select {
	case <-ctx.Done():
		return
	case <-n.datapath.Started():
	}
	if !sleep(ctx, startupLasts) {
		return
	}
	debug.FreeOSMemory()
	if err := releaseText(); err != nil {
		n.log.Debug("cannot release pages of the program", "err", err)
	}
}

// releaseText unmaps the pages of this program's file that are not writable. They are in the page cache, and are mapped again where they
// are used.
func releaseText() error {
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return fmt.Errorf("node: %w", err)
	}
	defer maps.Close()
	for _, m := range readOnlyMappings(maps, program) {
		if _, _, errno := unix.Syscall(unix.SYS_MADVISE, m.from, m.to-m.from, unix.MADV_DONTNEED); errno != 0 {
			return fmt.Errorf("node: madvise: %w", errno)
		}
	}
	return nil
}

// mapping is a range of addresses.
type mapping struct{ from, to uintptr }

// readOnlyMappings returns the mappings of a file that are not writable, in the form of proc_pid_maps(5).
func readOnlyMappings(maps io.Reader, file string) (found []mapping) {
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		var m mapping
		var mode string
		_, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &m.from, &m.to, &mode)
		if err == nil && strings.HasSuffix(lines.Text(), " "+file) && !strings.Contains(mode, "w") {
			found = append(found, m)
		}
	}
	return found
}
