package daemon

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// turnPause is how often a daemon that waits for its turn looks: it is part of what pods lose at an upgrade.
const turnPause = 10 * time.Millisecond

// takeTurn returns once no other daemon with --take-over runs at the same socket; release lets the next one. The kernel
// releases for a process that ends, however it does.
func (c *Config) takeTurn(ctx context.Context) (release func(), err error) {
	path := c.Socket + ".lock"
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, refuse("--socket", "Name a path in a folder that can be made.", "%w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, refuse("--socket", "Name a path where files can be made.", "%w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("daemon: locking %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, f.Close()
		case <-time.After(turnPause):
		}
	}
}
