package kubernetes

import (
	"errors"
	"syscall"

	"golang.org/x/sys/unix"
)

// socketOptions lets a socket send broadcasts, and share its port with others of the test.
func socketOptions(_, _ string, raw syscall.RawConn) (err error) {
	control := raw.Control(func(fd uintptr) {
		err = errors.Join(
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_BROADCAST, 1),
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
		)
	})
	return errors.Join(control, err)
}
