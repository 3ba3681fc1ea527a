// Package unixsocket binds unix sockets that only their user can connect to.
package unixsocket

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// mode is that of a socket's file: connecting needs the permission to write (unix(7)).
const mode = 0o600

// Listen binds a stream socket at path, in place of one that an earlier process has left. Its file has mode 0600 from the first
// moment on, whatever the umask of the process. The caller closes the listener, which removes the file.
func Listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("unixsocket: removing the former socket: %w", err)
	}
	lc := net.ListenConfig{Control: private}
	l, err := lc.Listen(ctx, "unix", path)
	if err != nil {
		return nil, fmt.Errorf("unixsocket: %w", err)
	}
	return l, nil
}

// private sets the mode of a socket before it is bound. The kernel gives the file that bind makes the mode of the socket, less the
// umask (unix_bind in net/unix/af_unix.c), so there is no moment at which another user could connect. It implements
// net.ListenConfig.Control.
func private(_, _ string, conn syscall.RawConn) error {
	var err error
	if controlErr := conn.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), mode) }); controlErr != nil {
		return controlErr
	}
	return err
}
