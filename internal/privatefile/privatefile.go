// Package privatefile creates files that no other user can read.
package privatefile

import (
	"errors"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// ErrForeign is wrapped by errors about a path that leads to a file of another user, or elsewhere by a link.
var ErrForeign = errors.New("it is a link, or another user owns it")

// Create creates a file for writing that only the user of this process can read, and that no other process has open. A regular file
// of that user at path is replaced by a new one. A pipe or a device of that user or of root is opened as it is. Everything
// else is refused: a link, a folder, a file of another user. The caller closes the file. Errors are *fs.PathError.
func Create(path string) (*os.File, error) {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case !ours(info):
		return nil, &fs.PathError{Op: "open", Path: path, Err: ErrForeign}
	case !info.Mode().IsRegular():
		return os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW, 0)
	default:
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	// Another file that appears at path meanwhile is not opened, and a link is not followed (O_EXCL in open(2)).
	return os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
}

// ours reports whether a file may be replaced, or a pipe or device be written.
func ours(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok || info.Mode().Type() == fs.ModeSymlink {
		return false
	}
	return int(stat.Uid) == os.Geteuid() || stat.Uid == 0 && !info.Mode().IsRegular()
}
