// Package live reads the state of this host's network, and changes it, for package hoststate.
package live

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/hoststate"
	"weft/internal/netdump"
)

// sysNet is the folder of the network settings of the calling thread's namespace.
const sysNet = "/proc/sys/net"

// Host is this host: the network namespace of the thread that called Open. It is not safe for concurrent use.
type Host struct {
	socket *nl.NetlinkSocket
	handle *netlink.Handle
}

// Open opens the sockets to the kernel.
func Open() (*Host, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE) // to no group
	if err != nil {
		return nil, fmt.Errorf("live: netlink: %w", err)
	}
	h := &Host{socket: s}
	err = errors.Join(s.SetSendTimeout(&nl.SocketTimeoutTv), s.SetReceiveTimeout(&nl.SocketTimeoutTv))
	// With it the kernel filters dumps. Kernels before 4.20 return all entries instead, which Observe filters.
	if strict := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); !errors.Is(strict, unix.ENOPROTOOPT) {
		err = errors.Join(err, strict)
	}
	if err == nil {
		h.handle, err = netlink.NewHandle(unix.NETLINK_ROUTE)
	}
	if err != nil {
		s.Close()
		return nil, fmt.Errorf("live: netlink: %w", err)
	}
	return h, nil
}

// Close closes the sockets.
func (h *Host) Close() {
	h.socket.Close()
	h.handle.Close()
}

// Observe returns the state of the host, as far as d is about it.
func (h *Host) Observe(d hoststate.Desired) (o hoststate.Observed, err error) {
	o.Links, err = h.links()
	if err != nil {
		return o, fmt.Errorf("live: list links: %w", err)
	}
	o.Settings = Settings(d.Paths())
	bridge, found := o.Links[d.Bridge.Name]
	if !found {
		return o, nil
	}
	if o.Deaf, err = h.deaf(bridge); err != nil {
		return o, fmt.Errorf("live: look up the MAC of %s: %w", bridge.Name, err)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		addrs, err := h.addresses(family, bridge.Index)
		if err != nil {
			return o, fmt.Errorf("live: list the addresses of %s: %w", bridge.Name, err)
		}
		routes, err := h.routes(family, bridge.Index, unix.RT_TABLE_MAIN, unix.RTN_UNICAST)
		if err != nil {
			return o, fmt.Errorf("live: list the routes of %s: %w", bridge.Name, err)
		}
		local, err := h.routes(family, bridge.Index, unix.RT_TABLE_LOCAL, unix.RTN_LOCAL)
		if err != nil {
			return o, fmt.Errorf("live: list the local routes of %s: %w", bridge.Name, err)
		}
		o.Addresses, o.Routes, o.Local = append(o.Addresses, addrs...), append(o.Routes, routes...), append(o.Local, local...)
	}
	return o, nil
}

// Settings returns network settings by their paths below /proc/sys/net. It leaves out those that cannot be read.
func Settings(paths []string) map[string]string {
	values := make(map[string]string, len(paths))
	for _, path := range paths {
		if text, err := os.ReadFile(filepath.Join(sysNet, path)); err == nil {
			values[path] = strings.TrimSpace(string(text))
		}
	}
	return values
}

// Writable reports whether a network setting exists and can be written: in a container, /proc/sys is usually read-only.
func Writable(path string) bool { return unix.Access(filepath.Join(sysNet, path), unix.W_OK) == nil }

// writeSetting writes a network setting.
func writeSetting(path, value string) error {
	err := os.WriteFile(filepath.Join(sysNet, path), []byte(value), 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the interface has just been removed
	}
	return err
}

// request sends a request on the socket with strict checking, and returns the answers of the given type. It repeats a dump that is
// interrupted.
func (h *Host) request(kind int, flags int, answer uint16, parts ...nl.NetlinkRequestData) ([][]byte, error) {
	return netdump.Repeat(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(kind, flags)
		req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: h.socket}}
		for _, p := range parts {
			req.AddData(p)
		}
		return req.Execute(unix.NETLINK_ROUTE, answer)
	})
}
