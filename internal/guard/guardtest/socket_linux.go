package guardtest

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/netdump"
)

// Socket sends frames on an interface and receives all of its frames.
type Socket struct{ file *os.File }

// Open opens a socket on an interface of the calling thread's network namespace. The caller closes it.
func Open(name string) (*Socket, error) {
	link, err := netdump.Repeat(func() (*net.Interface, error) { return net.InterfaceByName(name) })
	if err != nil {
		return nil, fmt.Errorf("guardtest: %w", err)
	}
	const all = unix.ETH_P_ALL<<8&0xff00 | unix.ETH_P_ALL>>8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, all)
	if err != nil {
		return nil, fmt.Errorf("guardtest: %w", err)
	}
	s := &Socket{os.NewFile(uintptr(fd), "packet socket")}
	mreq := unix.PacketMreq{Ifindex: int32(link.Index), Type: unix.PACKET_MR_PROMISC}
	if err := errors.Join(
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: link.Index}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq),
	); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("guardtest: %w", err)
	}
	return s, nil
}

// Close closes the socket.
func (s *Socket) Close() error { return s.file.Close() }

// Send sends frames.
func (s *Socket) Send(frames ...Frame) error {
	for _, f := range frames {
		if _, err := s.file.Write(f.Data); err != nil {
			return fmt.Errorf("guardtest: send %s: %w", f.Name, err)
		}
	}
	return nil
}

// Until receives until the marker arrives, and returns which destinations were seen. It fails after the timeout.
func (s *Socket) Until(marker Frame, timeout time.Duration) (map[ether.Addr]bool, error) {
	if err := s.file.SetReadDeadline(time.Now().Add(timeout)); err != nil {
		return nil, err
	}
	seen := map[ether.Addr]bool{}
	buf := make([]byte, 1<<16)
	for !seen[marker.To()] {
		n, err := s.file.Read(buf)
		if err != nil {
			return seen, fmt.Errorf("guardtest: waiting for the marker: %w", err)
		}
		if n >= ether.HeaderLen {
			seen[ether.Addr(buf[:6])] = true
		}
	}
	return seen, nil
}
