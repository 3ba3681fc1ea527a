package kubernetes

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// broadcasts lets a socket send broadcasts.
func broadcasts(_, _ string, raw syscall.RawConn) (err error) {
	if control := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1) }); control != nil {
		return control
	}
	return err
}
