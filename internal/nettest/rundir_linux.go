package nettest

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// shareRunDir makes the folder of namespaces a shared mount, as the first "ip netns add" on a host does. If that happened
// later, the new mount would cover the mounts of existing namespaces, and these could not be removed any more.
var shareRunDir = sync.OnceValue(func() (err error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return fmt.Errorf("nettest: %w", err)
	}
	dir, err := os.Open(runDir)
	if err != nil {
		return fmt.Errorf("nettest: %w", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil { // tests of other packages may do the same now
		return fmt.Errorf("nettest: locking %s: %w", runDir, err)
	}
	share := func() error { return unix.Mount("", runDir, "none", unix.MS_SHARED|unix.MS_REC, "") }
	if err := share(); err == nil || !errors.Is(err, unix.EINVAL) { // EINVAL: not a mount yet
		return err
	}
	if err := unix.Mount(runDir, runDir, "none", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return fmt.Errorf("nettest: mounting %s on itself: %w", runDir, err)
	}
	return share()
})
