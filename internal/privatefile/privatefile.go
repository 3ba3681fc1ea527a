// Package privatefile creates files that no other user can read.
package privatefile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrForeign is wrapped by errors about a path that leads to a file of another user, or elsewhere by a link.
var ErrForeign = errors.New("privatefile: it is a link, or another user owns it")

// Create creates a file for writing that only the user of this process can read, and that no other process has open. A regular file
// of that user at path is replaced by a new one. A pipe or a device of that user or of root is opened as it is. Everything
// else is refused: a link, a folder, a file of another user. The caller closes the file.
func Create(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("privatefile: %w", err)
	case !ours(info):
		return nil, fmt.Errorf("%w: %s", ErrForeign, path)
	case !info.Mode().IsRegular():
		return open(path, unix.O_NOFOLLOW)
	default:
		if err := os.Remove(path); err != nil {
			return nil, fmt.Errorf("privatefile: %w", err)
		}
	}
	// Another file that appears at path meanwhile is not opened, and a link is not followed (O_EXCL in open(2)).
	return open(path, os.O_CREATE|os.O_EXCL)
}

func open(path string, flags int) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|flags, 0o600)
	if err != nil {
		return nil, fmt.Errorf("privatefile: %w", err)
	}
	return f, nil
}

// ours reports whether a file may be replaced, or a pipe or device be written.
func ours(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Type() == fs.ModeSymlink {
		return false
	}
	return int(stat.Uid) == os.Geteuid() || stat.Uid == 0 && !info.Mode().IsRegular()
}
