package underlay

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// setOptions sets the options that must be set before the socket is bound.
func setOptions(fd int, cfg Config, shared bool) error {
	if shared {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return fmt.Errorf("share the port: %w", err)
		}
	}
	if err := setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, cfg.ReceiveBuffer, DefaultReceiveBuffer); err != nil {
		return fmt.Errorf("receive buffer: %w", err)
	}
	if err := setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, cfg.SendBuffer, DefaultSendBuffer); err != nil {
		return fmt.Errorf("send buffer: %w", err)
	}
	ipv6, err := isIPv6(fd)
	if err != nil {
		return err
	}
	discover := unix.IP_PMTUDISC_DONT
	if cfg.DontFragment {
		discover = unix.IP_PMTUDISC_PROBE
	}
	if err := setDiscover(fd, ipv6, discover); err != nil {
		return fmt.Errorf("fragmentation: %w", err)
	}
	if err := setBoth(fd, ipv6, unix.IP_RECVTOS, unix.IPV6_RECVTCLASS, 1); err != nil {
		return fmt.Errorf("receive the TOS: %w", err)
	}
	return setBoth(fd, ipv6, unix.IP_RECVERR, unix.IPV6_RECVERR, 1)
}

// isIPv6 reports whether the socket is an IPv6 socket, which handles both families.
func isIPv6(fd int) (bool, error) {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	return family == unix.AF_INET6, err
}

// setDiscover sets how the kernel handles datagrams that are too large for the path: one of IP_PMTUDISC, which has the
// same values as the option of IPv6.
func setDiscover(fd int, ipv6 bool, how int) error {
	return setBoth(fd, ipv6, unix.IP_MTU_DISCOVER, unix.IPV6_MTU_DISCOVER, how)
}

// setBoth sets an option for IPv4, and for IPv6 if the socket is an IPv6 socket.
func setBoth(fd int, ipv6 bool, option4, option6, value int) error {
	err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, option4, value)
	if err == nil && ipv6 {
		err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, option6, value)
	}
	return err
}

// setBuffer requests a buffer of size bytes beyond the system's limit, or within it without the privilege.
func setBuffer(fd, force, polite, size, standard int) error {
	if size == 0 {
		size = standard
	}
	err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, size)
	if errors.Is(err, unix.EPERM) {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, polite, size)
	}
	return err
}

// bufferSize returns the size of a buffer. The kernel allocates twice the requested size, one half for its own
// bookkeeping (socket(7)).
func bufferSize(fd, option int) (int, error) {
	size, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option)
	return size / 2, err
}

// negotiate enables the offloads that the kernel has and cfg allows.
func negotiate(fd int, cfg Config) (f Features) {
	// UDP_SEGMENT is set for each message; 0 changes nothing, but shows whether the kernel has the option.
	if !cfg.NoGSO && unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_SEGMENT, 0) == nil {
		f |= GSO
	}
	if !cfg.NoGRO && unix.SetsockoptInt(fd, unix.SOL_UDP, unix.UDP_GRO, 1) == nil {
		f |= GRO
	}
	return f
}
