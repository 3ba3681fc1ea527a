package statedir

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"weft/internal/nettest/labtest"
)

// TestCheckDisk: a file system without room and one that is read-only are refused, and one that does not limit its size is not.
func TestCheckDisk(t *testing.T) {
	if err := CheckDisk(t.TempDir()); err != nil {
		t.Errorf("a folder to write in: %v", err)
	}
	if err := CheckDisk(t.TempDir() + "/gone"); err == nil || !strings.Contains(err.Error(), "was removed") {
		t.Errorf("a folder that is gone: %v", err)
	}
	labtest.RequireRoot(t) // for the mounts
	for _, c := range []struct {
		name, kind, options string
		flags               uintptr
		want                string // part of the error; empty: none
	}{
		{"enough room", "tmpfs", "size=1m", 0, ""},
		{"little room", "tmpfs", "size=32k", 0, "less than 64 KiB left"},
		{"no inode left", "tmpfs", "size=1m,nr_inodes=1", 0, "no more files"},
		{"tmpfs without a limit", "tmpfs", "size=0,nr_inodes=0", 0, ""},
		{"ramfs", "ramfs", "", 0, ""},
		{"read-only", "tmpfs", "size=1m", unix.MS_RDONLY, "is read-only"},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := unix.Mount(c.kind, dir, c.kind, c.flags, c.options); err != nil {
				t.Fatal(err)
			}
			err := CheckDisk(dir)
			if err := unix.Unmount(dir, 0); err != nil {
				t.Fatal(err)
			}
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
}
