package vxlan

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/router/carrier"
	"weft/router/carrier/framewatch"
)

// socket is a packet socket on the device, for probes. The bridge consumes every frame that arrives at its port, so
// only a socket for all protocols sees them before. A filter in the kernel selects the probes; for other frames, the
// only cost is that filter.
type socket struct {
	// Constant after openSocket.
	file *os.File
	// Set before the first use.
	token carrier.Token // that all sent probes have; zero: none

	// Owned by the caller of receive.
	in [ether.HeaderLen + carrier.ProbeLen]byte

	// out is guarded by mu.
	mu  sync.Mutex
	out []byte

	// Atomic.
	size atomic.Int64 // of a probe's payload in bytes: the MTU of the device
	bad  atomic.Uint64
}

// openSocket opens a socket on the interface with that index, which may be down.
func openSocket(index, mtu int) (*socket, error) {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("vxlan: packet socket: %w", err)
	}
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)) // htons
	err = errors.Join(
		// Linux 4.20; older kernels also filter sent frames, which receive then ignores.
		ignoreMissing(unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)),
		onlyProbes(fd),
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: index}),
	)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("vxlan: packet socket: %w", err), unix.Close(fd))
	}
	s := &socket{file: os.NewFile(uintptr(fd), "vxlan probes")}
	s.size.Store(int64(mtu))
	return s, nil
}

func ignoreMissing(err error) error {
	if errors.Is(err, unix.ENOPROTOOPT) {
		return nil
	}
	return err
}

// onlyProbes sets a filter that drops all frames but probes, and removes their padding.
func onlyProbes(fd int) error {
	return framewatch.SetFilter(fd, []bpf.Instruction{
		bpf.LoadAbsolute{Off: 12, Size: 2},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: probeType, SkipFalse: 1},
		bpf.RetConstant{Val: ether.HeaderLen + carrier.ProbeLen},
		bpf.RetConstant{Val: 0},
	})
}

// receive waits for a probe. The error is net.ErrClosed after close.
func (s *socket) receive() (carrier.Probe, error) {
	for {
		n, err := s.file.Read(s.in[:])
		switch {
		case errors.Is(err, os.ErrClosed):
			return carrier.Probe{}, net.ErrClosed
		case errors.Is(err, unix.ENETDOWN): // reported once when the device goes down; it may come up again
			continue
		case err != nil:
			return carrier.Probe{}, fmt.Errorf("vxlan: receive probes: %w", err)
		}
		if p, err := parseProbe(s.in[:n]); err == nil {
			return p, nil
		}
		s.bad.Add(1)
	}
}

// send sends p to the device of p.To.
func (s *socket) send(p carrier.Probe) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out = appendProbe(s.out[:0], p, int(s.size.Load()))
	if s.token != (carrier.Token{}) {
		copy(s.out[tokenAt:], s.token[:])
	}
	_, err := s.file.Write(s.out)
	if errors.Is(err, unix.ENETDOWN) { // perhaps from the time before the device came up: such an error is reported once
		_, err = s.file.Write(s.out)
	}
	if err != nil {
		return fmt.Errorf("vxlan: send a probe: %w", err)
	}
	return nil
}

func (s *socket) close() error { return s.file.Close() }
