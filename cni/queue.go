package cni

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// queueName is the folder beside the daemon's socket where deletions wait for a daemon that is away. It need not outlive
// a reboot: then no attachment is left, and the daemon finds that out by itself.
const queueName = "deletions"

// Queue is where leases of containers that were deleted while the daemon was away wait to be ended. The plugin writes it, one file
// an owner, the daemon empties it.
type Queue struct{ dir string }

// QueueOf returns the queue of the daemon at a socket.
func QueueOf(socket string) Queue { return Queue{dir: filepath.Join(filepath.Dir(socket), queueName)} }

func (q Queue) path(owner string) string {
	sum := sha256.Sum256([]byte(owner))
	return filepath.Join(q.dir, hex.EncodeToString(sum[:16]))
}

// Add has the leases of owner end later.
func (q Queue) Add(owner string) error {
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		return fmt.Errorf("cni: queueing a deletion: %w", err)
	}
	if err := renameio.WriteFile(q.path(owner), []byte(owner), 0o600); err != nil {
		return fmt.Errorf("cni: queueing a deletion: %w", err)
	}
	return nil
}

// lock keeps Forget and Drain from each other until unlock is called: what Drain has begun to end, Forget waits for.
func (q Queue) lock() (unlock func(), err error) {
	dir, err := os.Open(q.dir)
	if err != nil {
		return nil, fmt.Errorf("cni: queued deletions: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("cni: queued deletions: %w", err), dir.Close())
	}
	return func() { _ = dir.Close() }, nil
}

// Forget has the leases of owner not end: it is about to have new ones.
func (q Queue) Forget(owner string) error {
	unlock, err := q.lock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(q.path(owner)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cni: a queued deletion: %w", err)
	}
	return nil
}

// Drain calls release for each owner in the queue and takes those out for which it returns nil. It returns how many these
// were.
func (q Queue) Drain(release func(owner string) error) (n int, err error) {
	unlock, err := q.lock()
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	} else if err != nil {
		return 0, err
	}
	defer unlock()
	entries, err := os.ReadDir(q.dir)
	errs := []error{err}
	for _, e := range entries {
		path := filepath.Join(q.dir, e.Name())
		owner, err := os.ReadFile(path)
		if err != nil || path != q.path(string(owner)) { // taken back meanwhile, or not ours
			continue
		}
		if err := release(string(owner)); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
		errs = append(errs, os.Remove(path))
	}
	return n, errors.Join(errs...)
}
