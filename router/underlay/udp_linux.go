package underlay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// DefaultBuffer is the size in bytes asked of the kernel for a socket's receive and send buffers: 30 ms of 1 Gbit/s.
const DefaultBuffer = 4 << 20

// Errors that Listen wraps, in sentences that name port or address and the mend.
var (
	// ErrPortInUse: another socket of the host has the port.
	ErrPortInUse = errors.New("the port is in use")
	// ErrSource: Config.Source is no address of this host. Behind a NAT the address that others see is none.
	ErrSource = errors.New("not an address of this host")
)

// Config describes a socket; what is zero takes its default.
type Config struct {
	// Port is the UDP port; 0 for any free one.
	Port uint16
	// Source, where valid, is the address that datagrams of its family come from, on a host that has several: peers know
	// a node by it. It must be an address of this host. The socket receives on all addresses nonetheless.
	Source netip.Addr
	// RcvBuf and SndBuf are the sizes in bytes of the kernel's buffers, DefaultBuffer where 0. A process without
	// CAP_NET_ADMIN gets no more than net.core.rmem_max and wmem_max allow.
	RcvBuf, SndBuf int
}

var _ Conn = (*UDP)(nil)

// UDP is a Conn of the kernel: one socket for IPv4 and IPv6 where the host has both.
type UDP struct {
	// Constant after Listen.
	conn  *net.UDPConn
	raw   syscall.RawConn
	local netip.AddrPort

	in  receiver // owned by the goroutine that reads
	mu  sync.Mutex
	out sender // guarded by mu; the kernel takes one batch at a time from a socket anyway
}

// Listen opens a socket on all addresses of the host. Datagrams larger than the path's MTU are fragmented on the way.
// The error wraps ErrPortInUse or ErrSource where that is what is wrong.
func Listen(cfg Config) (*UDP, error) {
	source := cfg.Source.Unmap()
	if source.IsValid() {
		if err := checkSource(source); err != nil {
			return nil, err
		}
	}
	control := func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = setOptions(int(fd), cfg) }), err)
	}
	lc := net.ListenConfig{Control: control}
	pc, err := lc.ListenPacket(context.Background(), "udp", fmt.Sprintf(":%d", cfg.Port))
	if errors.Is(err, unix.EADDRINUSE) {
		return nil, fmt.Errorf("underlay: UDP port %d: %w: stop what has it (ss -ulpn sport = :%d) or choose another: %w",
			cfg.Port, ErrPortInUse, cfg.Port, err)
	}
	if err != nil {
		return nil, fmt.Errorf("underlay: UDP port %d: %w", cfg.Port, err)
	}
	u, err := newUDP(pc.(*net.UDPConn), source)
	if err != nil {
		pc.Close()
		return nil, fmt.Errorf("underlay: UDP port %d: %w", cfg.Port, err)
	}
	return u, nil
}

func newUDP(conn *net.UDPConn, source netip.Addr) (*UDP, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	family, familyErr := 0, error(nil)
	err = raw.Control(func(fd uintptr) {
		family, familyErr = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN)
	})
	if err := errors.Join(err, familyErr); err != nil {
		return nil, err
	}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	u := &UDP{conn: conn, raw: raw, local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port())}
	u.in.init()
	u.out.init(family == unix.AF_INET6, source)
	return u, nil
}

// LocalAddr implements Conn: the unspecified address, and the port.
func (u *UDP) LocalAddr() netip.AddrPort { return u.local }

// Close implements Conn.
func (u *UDP) Close() error {
	if err := u.conn.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("underlay: %w", err)
	}
	return nil
}

// checkSource returns an error that wraps ErrSource where no socket can be bound to source.
func checkSource(source netip.Addr) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0)))
	if err != nil {
		return fmt.Errorf("underlay: source %s: %w: leave it out, or name one that \"ip addr\" shows: %w", source, ErrSource, err)
	}
	return conn.Close()
}

// setOptions sets what must be set before the socket is bound.
func setOptions(fd int, cfg Config) error {
	if err := setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.RcvBuf); err != nil {
		return fmt.Errorf("receive buffer: %w", err)
	}
	if err := setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.SndBuf); err != nil {
		return fmt.Errorf("send buffer: %w", err)
	}
	// Without the don't-fragment bit a datagram that is too large for some link on the way arrives in pieces: slow, but
	// it arrives. The bit is for senders that find the path's MTU; until the router does, it would make black holes.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DONT); err != nil {
		return fmt.Errorf("fragmentation: %w", err)
	}
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil || family != unix.AF_INET6 {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DONT); err != nil {
		return fmt.Errorf("fragmentation, IPv6: %w", err)
	}
	return nil
}

// setBuffer asks for a buffer of size bytes beyond the system's limit, and within it where that is not allowed.
func setBuffer(fd, force, polite, size int) error {
	if size == 0 {
		size = DefaultBuffer
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, polite, size)
	}
	return err
}
