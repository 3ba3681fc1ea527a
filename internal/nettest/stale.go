package nettest

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// killTimeout bounds the time for processes to end after SIGKILL.
const killTimeout = 10 * time.Second

// removeStale removes the namespaces and folders with names that start with prefix and belong to labs of dead processes.
func removeStale(prefix string) error {
	var names []string
	entries, err := os.ReadDir(runDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("nettest: %w", err)
	}
	for _, e := range entries {
		if ownerDead(prefix, e.Name()) {
			names = append(names, e.Name())
		}
	}
	errs := []error{removeSpaces(names)}
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), prefix+"*"))
	if err != nil {
		return fmt.Errorf("nettest: %w", err)
	}
	for _, d := range dirs {
		if ownerDead(prefix, filepath.Base(d)) {
			errs = append(errs, os.RemoveAll(d))
		}
	}
	return errors.Join(errs...)
}

// ownerDead reports whether name has the form prefix, PID, "-" and more, and no process with this PID exists.
func ownerDead(prefix, name string) bool {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	number, _, ok := strings.Cut(rest, "-")
	pid, err := strconv.Atoi(number)
	if !ok || err != nil || pid <= 0 {
		return false
	}
	return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// removeSpaces kills all processes in the named namespaces and removes the namespaces. Names that do not exist are no
// error.
func removeSpaces(names []string) error {
	var errs []error
	inside := map[identity]bool{}
	for _, name := range names {
		if id, ok := identify(filepath.Join(runDir, name)); ok {
			inside[id] = true
		}
	}
	if len(inside) > 0 {
		errs = append(errs, killInside(inside))
	}
	for _, name := range names {
		err := netns.DeleteNamed(name)
		if errors.Is(err, unix.EINVAL) { // a file that is not a mount
			err = os.Remove(filepath.Join(runDir, name))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("nettest: removing namespace %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// identity identifies a namespace.
type identity struct{ dev, ino uint64 }

// identify returns the identity of the namespace at path, and false if path is not a namespace.
func identify(path string) (id identity, ok bool) {
	var st unix.Stat_t
	if ns.IsNSorErr(path) != nil || unix.Stat(path, &st) != nil {
		return identity{}, false
	}
	return identity{st.Dev, st.Ino}, true
}

// killInside kills the processes in the given namespaces and waits until there are none.
func killInside(spaces map[identity]bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	return Until(ctx, func() error {
		pids := processesIn(spaces)
		for _, pid := range pids {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		if len(pids) > 0 {
			return fmt.Errorf("nettest: processes %v do not end", pids)
		}
		return nil
	})
}

// processesIn returns the IDs of the processes in the given network namespaces, except this process. Zombies are in no
// namespace.
func processesIn(spaces map[identity]bool) (pids []int) {
	entries, _ := filepath.Glob("/proc/[0-9]*/ns/net")
	for _, path := range entries {
		if id, ok := identify(path); !ok || !spaces[id] {
			continue
		}
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err == nil && pid != os.Getpid() {
			pids = append(pids, pid)
		}
	}
	return pids
}
