// Package deletions is a queue on disk of deletions that arrived while the daemon was away: the CNI plugin adds to it, the
// daemon ends the leases and empties it.
package deletions

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

	"weft/internal/leases/holder"
)

// dirName is the directory beside the daemon's socket that holds the queue, one file a holder. It need not survive a reboot:
// after one no attachment is left, and the daemon detects that by itself.
const dirName = "deletions"

// Queue contains the holders of leases that have to end. All methods may be called by several processes at once.
type Queue struct{ dir string }

// Open returns the queue of the daemon at a socket. It creates nothing.
func Open(socket string) Queue { return Queue{dir: filepath.Join(filepath.Dir(socket), dirName)} }

func (q Queue) path(text string) string {
	sum := sha256.Sum256([]byte(text))
	return filepath.Join(q.dir, hex.EncodeToString(sum[:16]))
}

// Add makes the leases of h end when the daemon next drains the queue.
func (q Queue) Add(h holder.Holder) error {
	if err := os.MkdirAll(q.dir, 0o700); err != nil {
		return fmt.Errorf("deletions: adding %s: %w", h, err)
	}
	if err := renameio.WriteFile(q.path(h.String()), []byte(h.String()), 0o600); err != nil {
		return fmt.Errorf("deletions: adding %s: %w", h, err)
	}
	return nil
}

// lock keeps Forget and Drain apart until unlock is called: Forget waits until Drain has ended the leases of a holder.
func (q Queue) lock() (unlock func(), err error) {
	dir, err := os.Open(q.dir)
	if err != nil {
		return nil, fmt.Errorf("deletions: opening the queue: %w", err)
	}
	if err := unix.Flock(int(dir.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("deletions: locking the queue: %w", err), dir.Close())
	}
	return func() { _ = dir.Close() }, nil
}

// Forget removes h from the queue: it is about to get new leases, which must not end.
func (q Queue) Forget(h holder.Holder) error {
	unlock, err := q.lock()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer unlock()
	if err := os.Remove(q.path(h.String())); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("deletions: removing %s: %w", h, err)
	}
	return nil
}

// Drain calls release for each holder in the queue and removes those for which it returns nil. It returns how many it removed.
func (q Queue) Drain(release func(holder.Holder) error) (n int, err error) {
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
		text, err := os.ReadFile(path)
		if err != nil || path != q.path(string(text)) { // removed in the meantime, or a file that Add did not write
			continue
		}
		if err := release(holder.Parse(string(text))); err != nil {
			errs = append(errs, err)
			continue
		}
		n++
		errs = append(errs, os.Remove(path))
	}
	return n, errors.Join(errs...)
}
