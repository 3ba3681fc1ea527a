package taptest

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// RequireRoot skips t for a user who may not make interfaces. With WEFT_TEST=require, t fails instead.
func RequireRoot(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("kernel tests do not run in short mode")
	}
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv("WEFT_TEST") == "require" {
		t.Fatal("kernel tests need root, and WEFT_TEST=require forbids to skip them")
	}
	t.Skip("kernel tests need root")
}

// InNamespace moves only t's goroutine into a new network namespace until t ends; it requires root. Sockets, interfaces
// and netlink handles stay in the namespace in which they were opened, in whichever goroutine they are used.
func InNamespace(t testing.TB) {
	t.Helper()
	RequireRoot(t)
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatalf("taptest: this network namespace: %v", err)
	}
	inside, err := netns.New()
	if err != nil {
		t.Fatalf("taptest: new network namespace: %v", err)
	}
	t.Cleanup(func() {
		inside.Close()
		defer before.Close()
		if err := netns.Set(before); err != nil {
			t.Errorf("taptest: back to the first network namespace: %v", err)
			return // the thread stays locked, so that it ends with the goroutine
		}
		runtime.UnlockOSThread()
	})
}

// Socket is a packet socket on an interface: the view of the host.
type Socket struct {
	fd  int
	buf []byte
}

// NewSocket opens a socket on the interface called name in the current network namespace, until t ends.
func NewSocket(t testing.TB, name string) *Socket {
	t.Helper()
	link, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatalf("taptest: %s: %v", name, err)
	}
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatalf("taptest: packet socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)) // htons
	tick := unix.NsecToTimeval(int64(20 * time.Millisecond))
	if err := errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tick), // so that Receive notices the end of its context
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Attrs().Index}),
	); err != nil {
		t.Fatalf("taptest: packet socket on %s: %v", name, err)
	}
	return &Socket{fd: fd, buf: make([]byte, 1<<16)}
}

// Send sends frame out of the interface, without the host's own stack.
func (s *Socket) Send(frame []byte) error {
	_, err := unix.Write(s.fd, frame)
	return err
}

// Receive waits for a frame that arrives at the interface. It ignores frames that are sent out of it.
func (s *Socket) Receive(ctx context.Context) ([]byte, error) {
	for ctx.Err() == nil {
		n, err := unix.Read(s.fd, s.buf)
		switch {
		case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return nil, fmt.Errorf("taptest: packet socket: %w", err)
		}
		return append([]byte(nil), s.buf[:n]...), nil
	}
	return nil, ctx.Err()
}
