package podlink

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
)

// Kernel is the Linker with netlink. The bridge is in the network namespace of the calling thread.
type Kernel struct{}

var _ Linker = Kernel{}

// New returns the Linker of this host.
func New() Kernel { return Kernel{} }

// Attach implements Linker.
func (Kernel) Attach(ctx context.Context, s Spec) (res Result, err error) {
	if err := s.Validate(); err != nil {
		return Result{}, err
	}
	if err := ctx.Err(); err != nil {
		return Result{}, fmt.Errorf("podlink: %w", err)
	}
	e, err := openEnds(s.Netns)
	if err != nil {
		return Result{}, err
	}
	defer e.close()
	bridge, err := e.bridge(s.Bridge)
	if err != nil {
		return Result{}, err
	}
	host, pod, err := e.makePair(s)
	if err != nil {
		return Result{}, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, remove(e.host, host))
		}
	}()
	if err := e.plug(host, bridge, s); err != nil {
		return Result{}, err
	}
	routes, err := e.configure(pod, s)
	if err != nil {
		return Result{}, err
	}
	if err := e.announce(ctx, host, pod, s.prefixes()); err != nil {
		return Result{}, err
	}
	return Result{
		HostName: s.HostName, HostMAC: macOf(host), MAC: macOf(pod), MTU: pod.Attrs().MTU,
		Addresses: s.prefixes(), Routes: routes,
	}, nil
}

// Detach implements Linker.
func (Kernel) Detach(ctx context.Context, netns, ifname, hostName string) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("podlink: %w", err)
	}
	if hostName == "" {
		return detachByPod(netns, ifname)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("podlink: netlink: %w", err)
	}
	defer h.Close()
	host, err := find(h, hostName)
	if err != nil || host.Type() != typeVeth {
		return ignoreNoLink(err)
	}
	return remove(h, host)
}

// detachByPod removes the pair with the given pod end, if Attach created it.
func detachByPod(netns, ifname string) error {
	e, err := openEnds(netns)
	if errors.Is(err, ErrNetns) {
		return nil
	} else if err != nil {
		return err
	}
	defer e.close()
	pod, err := find(e.pod, ifname)
	if err != nil {
		return ignoreNoLink(err)
	}
	host, err := e.host.LinkByIndex(pod.Attrs().ParentIndex)
	if err != nil || !e.isPair(host, pod) || !strings.HasPrefix(host.Attrs().Name, HostPrefix) {
		return nil // not created by Attach
	}
	return remove(e.host, host)
}

// Check implements Linker.
func (Kernel) Check(s Spec) error {
	if err := s.Validate(); err != nil {
		return err
	}
	e, err := openEnds(s.Netns)
	if err != nil {
		return err
	}
	defer e.close()
	bridge, err := e.bridge(s.Bridge)
	if err != nil {
		return err
	}
	host, err := find(e.host, s.HostName)
	if err != nil {
		return err
	}
	pod, err := find(e.pod, s.Ifname)
	if err != nil {
		return err
	}
	if err := e.checkEnds(s, host, pod, bridge); err != nil {
		return err
	}
	return e.checkNetwork(s, pod)
}

// Addresses implements Linker.
func (Kernel) Addresses(netns, ifname string) ([]netip.Prefix, ether.Addr, error) {
	e, err := openEnds(netns)
	if err != nil {
		return nil, ether.Addr{}, err
	}
	defer e.close()
	pod, err := find(e.pod, ifname)
	if err != nil {
		return nil, ether.Addr{}, err
	}
	prefixes, err := e.addresses(pod)
	if err != nil {
		return nil, ether.Addr{}, err
	}
	global := slices.DeleteFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().IsLinkLocalUnicast() })
	return global, macOf(pod), nil
}
