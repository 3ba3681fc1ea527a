package statedir

import (
	"errors"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"

	"weft/internal/hint"
)

// minWrite is the free space in bytes without which writes of state fail: a page of the store and a file of names.
const minWrite = 64 << 10

// CheckDisk returns an error if state cannot be written now: the file system of dir is full or read-only, or dir is gone. It writes
// nothing. Errors are *hint.Error.
func CheckDisk(dir string) error {
	var stat unix.Statfs_t
	err := unix.Statfs(dir, &stat)
	switch {
	case errors.Is(err, unix.ENOENT):
		return hint.New(hint.Internal, "Restart weft, which creates it again.", "%s was removed", dir)
	case err != nil:
		return hint.New(hint.Internal, "Repair its file system.", "%w", &fs.PathError{Op: "statfs", Path: dir, Err: err})
	case stat.Flags&unix.ST_RDONLY != 0:
		return hint.New(hint.Internal, "Mount its file system for writing: \"mount -o remount,rw\".", "the file system of %s is read-only", dir)
	}
	free := stat.Bavail
	if os.Geteuid() == 0 {
		free = stat.Bfree // with the blocks that are reserved for root
	}
	limited := stat.Blocks > 0 // a ramfs, or a tmpfs of size=0, reports no sizes
	switch {
	case limited && free*uint64(stat.Bsize) < minWrite:
		return hint.New(hint.Internal, "Free space there: \"df -h "+dir+"\" shows what is used.",
			"the file system of %s has less than %d KiB left", dir, minWrite>>10)
	case stat.Files > 0 && stat.Ffree == 0:
		return hint.New(hint.Internal, "Remove files there: \"df -i "+dir+"\" shows how many there are.",
			"the file system of %s has room for no more files", dir)
	}
	return nil
}
