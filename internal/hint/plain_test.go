package hint_test

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"
	"testing"

	"weft/internal/hint"
)

func TestPlainLeavesOutPackages(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"ipam: address in use: 10.32.0.2 is leased", "address in use: 10.32.0.2 is leased"},
		{"target a: mesh: joining: mesh: no route", "target a: joining: no route"},
		{"mesh: a\nipam: b", "a\nb"},
		{"node mesh: is dead", "node mesh: is dead"},
		{"names: dns", "names: dns"}, // the last part is the text
		{"dns", "dns"},
		{"10.32.0.1:6783: connection refused", "10.32.0.1:6783: connection refused"},
		{"fd00::1: unreachable", "fd00::1: unreachable"},
		{"", ""},
	} {
		if got := hint.Plain(tt.text); got != tt.want || hint.Plain(got) != got {
			t.Errorf("%q: %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestDiskNamesTheFolder(t *testing.T) {
	for _, tt := range []struct {
		errno syscall.Errno
		want  string
	}{
		{syscall.ENOSPC, "Free space on the file system of /var/lib/weft,"},
		{syscall.EDQUOT, "Free space on the file system of /var/lib/weft,"},
		{syscall.EROFS, "Mount the file system of /var/lib/weft for writing,"},
		{syscall.EIO, "Check the disk with the file system of /var/lib/weft:"},
		{syscall.EACCES, ""},
	} {
		err := fmt.Errorf("dns: saving names: %w", &fs.PathError{Op: "write", Path: "/var/lib/weft/names.json", Err: tt.errno})
		if got, ok := hint.Disk(err); ok != (tt.want != "") || !strings.HasPrefix(got, tt.want) {
			t.Errorf("%v: %q, want %q", tt.errno, got, tt.want)
		}
	}
	if _, ok := hint.Disk(errors.New("no space left on device")); ok {
		t.Error("a text counts as an error of the kernel")
	}
}
