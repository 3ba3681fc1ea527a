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

// killTimeout bounds the wait for processes that were sent SIGKILL.
const killTimeout = 10 * time.Second

// removeStale removes the namespaces and folders of labs whose process is dead, by names that start with prefix.
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

// ownerDead reports whether name, which starts with prefix, is that of a lab whose process is no more.
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

// removeSpaces ends what runs in the named namespaces and removes them. Namespaces that are gone are fine.
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
		if errors.Is(err, unix.EINVAL) { // the file without the mount
			err = os.Remove(filepath.Join(runDir, name))
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, fmt.Errorf("nettest: removing namespace %s: %w", name, err))
		}
	}
	return errors.Join(errs...)
}

// identity tells namespaces apart.
type identity struct{ dev, ino uint64 }

// identify returns the identity of the namespace that path stands for; not ok if it stands for none.
func identify(path string) (id identity, ok bool) {
	var st unix.Stat_t
	if ns.IsNSorErr(path) != nil || unix.Stat(path, &st) != nil {
		return identity{}, false
	}
	return identity{st.Dev, st.Ino}, true
}

// killInside kills the processes in the given namespaces and waits until there are none. Whatever runs in a lab was
// started from it.
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

// processesIn returns the processes whose network namespace is one of those, this process excepted. A zombie is in
// no namespace any more.
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
