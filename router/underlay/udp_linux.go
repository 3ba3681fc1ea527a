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

var _ Conn = (*UDP)(nil)

// UDP is a Conn of the kernel: one socket for IPv4 and IPv6 where the host has both.
type UDP struct {
	// Constant after Listen.
	conn          *net.UDPConn
	raw           syscall.RawConn
	local         netip.AddrPort
	features      Features // as negotiated
	receive, send int      // sizes of the kernel's buffers

	stats counters // atomic
	in    receiver // owned by the goroutine that reads
	mu    sync.Mutex
	out   sender // guarded by mu; the kernel takes one batch at a time from a socket anyway
}

// Listen opens a socket on all addresses of the host. The error wraps ErrPortInUse or ErrSource where that is what is
// wrong.
func Listen(cfg Config) (*UDP, error) { return listen(cfg, false) }

// listen is Listen; a shared socket may join another one on the same port.
func listen(cfg Config, shared bool) (*UDP, error) {
	cfg.Source = cfg.Source.Unmap()
	if cfg.Source.IsValid() {
		if err := checkSource(cfg.Source); err != nil {
			return nil, err
		}
	}
	control := func(_, _ string, raw syscall.RawConn) error {
		var err error
		return errors.Join(raw.Control(func(fd uintptr) { err = setOptions(int(fd), cfg, shared) }), err)
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
	u, err := newUDP(pc.(*net.UDPConn), cfg)
	if err != nil {
		pc.Close()
		return nil, fmt.Errorf("underlay: UDP port %d: %w", cfg.Port, err)
	}
	return u, nil
}

func newUDP(conn *net.UDPConn, cfg Config) (*UDP, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	u := &UDP{conn: conn, raw: raw, local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port())}
	var ipv6 bool
	var errs [3]error
	err = raw.Control(func(fd uintptr) {
		ipv6, errs[0] = isIPv6(int(fd))
		u.receive, errs[1] = bufferSize(int(fd), unix.SO_RCVBUF)
		u.send, errs[2] = bufferSize(int(fd), unix.SO_SNDBUF)
		u.features = negotiate(int(fd), cfg)
	})
	if err := errors.Join(err, errors.Join(errs[:]...)); err != nil {
		return nil, err
	}
	u.in.init(&u.stats, cfg.OnError)
	u.out.init(ipv6, cfg.Source)
	u.out.fragment, u.out.stats, u.out.errors = !cfg.DontFragment, &u.stats, &u.in.errors.signs
	if u.features.Has(GSO) {
		u.out.whole.segments = maxSegments
	}
	return u, nil
}

// LocalAddr implements Conn: the unspecified address, and the port.
func (u *UDP) LocalAddr() netip.AddrPort { return u.local }

// Features returns the offloads in use. GSO goes away where kernel or device turn out not to do it. Any goroutine may
// call it.
func (u *UDP) Features() Features {
	if u.stats.gsoDisabled.Load() > 0 {
		return u.features &^ GSO
	}
	return u.features
}

// Stats returns the counters. Any goroutine may call it; the counters are read one after the other.
func (u *UDP) Stats() Stats { return u.stats.load() }

// Buffers returns the sizes in bytes that the kernel really gave the socket's buffers; they compare with those of Config.
func (u *UDP) Buffers() (receive, send int) { return u.receive, u.send }

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
