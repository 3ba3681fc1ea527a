// Package filelock provides a lock between the processes of a host: a file that one process at a time holds. The kernel
// releases the lock when its holder ends, also after a crash.
package filelock

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// pollInterval is the time between two attempts to get the lock. It is short, because it adds to the time without
// a datapath at an upgrade.
const pollInterval = 10 * time.Millisecond

// Acquire blocks until it holds an exclusive lock (flock(2)) on the file at path, which is created if it is missing.
// The caller holds the lock until it calls release, which must be called once. If ctx ends first, the error wraps
// that of ctx.
func Acquire(ctx context.Context, path string) (release func(), err error) {
	return acquire(ctx, path, unix.LOCK_EX)
}

// AcquireShared is Acquire for a lock that several processes may hold at once, but none of them together with an exclusive one.
func AcquireShared(ctx context.Context, path string) (release func(), err error) {
	return acquire(ctx, path, unix.LOCK_SH)
}

func acquire(ctx context.Context, path string, mode int) (release func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("filelock: %w", err)
	}
	for {
		err := unix.Flock(int(f.Fd()), mode|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("filelock: locking %s: %w", path, err), f.Close())
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), f.Close())
		case <-time.After(pollInterval):
		}
	}
}
