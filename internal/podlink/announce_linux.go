package podlink

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/netdump"
)

// The kernel opens the port of the bridge a moment after both ends are up, and drops earlier frames. The wait for the port is
// short, because a pod works without announcements, too.
const (
	portTimeout = 500 * time.Millisecond
	portPause   = time.Millisecond
)

// Announce sends an Announcement of each of the addresses of the interface with a MAC in the namespace at a path. It reports whether it
// has sent any: not while there is no such interface, or it is down or without an address. The error may wrap ErrNetns.
func Announce(netns string, mac ether.Addr) (sent bool, err error) {
	e, err := openEnds(netns)
	if err != nil {
		return false, err
	}
	defer e.close()
	links, err := netdump.Repeat(e.pod.LinkList)
	if err != nil {
		return false, fmt.Errorf("podlink: list links: %w", err)
	}
	for _, l := range links {
		if macOf(l) != mac || l.Attrs().OperState != netlink.OperUp {
			continue
		}
		prefixes, err := e.addresses(l)
		if err != nil || len(prefixes) == 0 {
			return false, err
		}
		return true, e.send(l, prefixes)
	}
	return false, nil
}

// announce sends an Announcement of each address from the pod end.
func (e *ends) announce(ctx context.Context, host, pod netlink.Link, addrs []netip.Prefix) error {
	if len(addrs) == 0 {
		return nil
	}
	if err := e.waitForPort(ctx, host); err != nil {
		return err
	}
	return e.send(pod, addrs)
}

// send sends an Announcement of each address from the pod end.
func (e *ends) send(pod netlink.Link, addrs []netip.Prefix) error {
	return e.space.Do(func(ns.NetNS) error {
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0) // 0: receives nothing
		if err != nil {
			return fmt.Errorf("podlink: open socket for announcements: %w", err)
		}
		defer func() { _ = unix.Close(fd) }()
		to := &unix.SockaddrLinklayer{Ifindex: pod.Attrs().Index}
		for _, p := range addrs {
			if err := unix.Sendto(fd, Announcement(macOf(pod), p.Addr()), 0, to); err != nil {
				return fmt.Errorf("podlink: announce %s: %w", p.Addr(), err)
			}
		}
		return nil
	})
}

// waitForPort returns when the host end is operational, or after portTimeout.
func (e *ends) waitForPort(ctx context.Context, host netlink.Link) error {
	timeout := time.NewTimer(portTimeout)
	defer timeout.Stop()
	tick := time.NewTicker(portPause)
	defer tick.Stop()
	for {
		l, err := e.host.LinkByIndex(host.Attrs().Index)
		if err != nil {
			return fmt.Errorf("podlink: %s: %w", host.Attrs().Name, err)
		}
		if l.Attrs().OperState == netlink.OperUp {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("podlink: %w", ctx.Err())
		case <-timeout.C:
			return nil
		case <-tick.C:
		}
	}
}
