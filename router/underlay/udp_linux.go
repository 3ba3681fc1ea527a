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

	"weft/internal/poll"
)

var _ Conn = (*UDP)(nil)

// UDP is a Conn on a kernel socket: one socket for both IPv4 and IPv6 if the host has both.
// See docs/adr/0048-a-source-port-a-flow.md.
type UDP struct {
	// Constant after Listen.
	file          *poll.File
	local         netip.AddrPort
	features      Features // as negotiated
	receive, send int      // sizes of the kernel's buffers

	stats counters // atomic
	in    receiver // owned by the goroutine that reads
	mu    sync.Mutex
	out   sender // guarded by mu; the kernel sends one batch of a socket at a time anyway
}

// Listen opens a socket on all addresses of the host. The error may wrap ErrPortInUse or ErrSource.
func Listen(cfg Config) (*UDP, error) { return listen(cfg, false) }

// listen is Listen; a shared socket may use the port of another shared socket.
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
		return nil, fmt.Errorf("underlay: UDP port %d: %w: stop the program that uses it (ss -ulpn sport = :%d) or choose another port: %w",
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
	local := conn.LocalAddr().(*net.UDPAddr).AddrPort()
	file, err := poll.Take(conn, "UDP socket")
	if err != nil {
		return nil, err
	}
	u := &UDP{file: file, local: netip.AddrPortFrom(local.Addr().Unmap(), local.Port())}
	var ipv6 bool
	var errs [3]error
	err = file.Control(func(fd uintptr) {
		ipv6, errs[0] = isIPv6(int(fd))
		u.receive, errs[1] = bufferSize(int(fd), unix.SO_RCVBUF)
		u.send, errs[2] = bufferSize(int(fd), unix.SO_SNDBUF)
		u.features = negotiate(int(fd), cfg)
	})
	if err := errors.Join(err, errors.Join(errs[:]...)); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	u.in.init(&u.stats, cfg.Reports)
	u.out.init(ipv6, cfg.Source, file)
	u.out.fragment, u.out.stats, u.out.errors = !cfg.DontFragment, &u.stats, &u.in.errors.signs
	if u.features.Has(GSO) {
		u.out.whole.segments = maxSegments
	}
	return u, nil
}

// Source implements Conn.
func (u *UDP) Source() poll.Source { return u.file.Source() }

// LocalAddr implements Conn: the unspecified address, and the port.
func (u *UDP) LocalAddr() netip.AddrPort { return u.local }

// Features returns the offloads in use, and Steering. GSO is disabled as soon as the kernel or a device turns out not to support it.
// Any goroutine may call it.
func (u *UDP) Features() Features {
	if u.stats.gsoDisabled.Load() > 0 {
		return u.features &^ GSO
	}
	return u.features
}

// Stats returns the counters. Any goroutine may call it; the counters are read one after the other.
func (u *UDP) Stats() Stats { return u.stats.load() }

// Buffers returns the real sizes of the socket's kernel buffers in bytes, in the unit of Config.
func (u *UDP) Buffers() (receive, send int) { return u.receive, u.send }

// SetSource replaces Config.Source while the socket is in use. It waits for a WriteBatch that runs. Any goroutine may call it. If
// the host does not have the address, datagrams of its family fail with EINVAL.
func (u *UDP) SetSource(source netip.Addr) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.out.whole.setSource(source.Unmap())
	u.out.single.setSource(source.Unmap())
}

// Close implements Conn.
func (u *UDP) Close() error {
	if err := u.file.Close(); err != nil {
		return fmt.Errorf("underlay: %w", err)
	}
	return nil
}

// checkSource returns an error that wraps ErrSource if no socket can be bound to source.
func checkSource(source netip.Addr) error {
	conn, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(source, 0)))
	if err != nil {
		return fmt.Errorf("underlay: source %s: %w: leave it out, or use an address that \"ip addr\" shows: %w", source, ErrSource, err)
	}
	return conn.Close()
}
