package unixsocket

import (
	"net"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestModeComesFromBind: the file has mode 0600 although nothing changes it after bind, and the umask of the process is open.
func TestModeComesFromBind(t *testing.T) {
	defer syscall.Umask(syscall.Umask(0))
	path := filepath.Join(t.TempDir(), "x.sock")
	for range 2 { // the second time in place of one that was left behind
		l, err := Listen(t.Context(), path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode() != os.ModeSocket|mode {
			t.Errorf("%v, %v; want mode %#o", info.Mode(), err, mode)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	}
}
