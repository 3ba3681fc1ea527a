package hint

import (
	"errors"
	"io/fs"
	"path/filepath"
	"syscall"
)

// Disk returns how to fix an error of a file system that cannot be written, and false for any other error. It names the folder of the
// file if err wraps a *fs.PathError.
func Disk(err error) (advice string, ok bool) {
	on := "the state directory"
	if e, is := errors.AsType[*fs.PathError](err); is {
		on = filepath.Dir(e.Path)
	}
	switch {
	case errors.Is(err, syscall.ENOSPC), errors.Is(err, syscall.EDQUOT):
		return "Free space on the file system of " + on + ", and try again.", true
	case errors.Is(err, syscall.EROFS):
		return "Mount the file system of " + on + " for writing, and try again.", true
	case errors.Is(err, syscall.EIO):
		return "Check the disk with the file system of " + on + ": the kernel's log (dmesg) has its errors.", true
	}
	return "", false
}
