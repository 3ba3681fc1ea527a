package podlink

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
)

// Adopt implements Linker.
func (Kernel) Adopt(ctx context.Context, s Spec, drop []netip.Addr) error {
	if err := s.Validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("podlink: %w", err)
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
	if !e.isPair(host, pod) {
		return fmt.Errorf("%w: %q is not the other end of %q", ErrExists, s.Ifname, s.HostName)
	}
	if err := e.setSysctls(s); err != nil {
		return err
	}
	if host.Attrs().MasterIndex != bridge.Attrs().Index {
		if err := e.host.LinkSetMaster(host, bridge); err != nil {
			return fmt.Errorf("podlink: add %s to the bridge: %w", s.HostName, err)
		}
	}
	if err := e.adoptLinks(s, host, pod); err != nil {
		return err
	}
	if err := e.adoptAddresses(pod, s, drop); err != nil {
		return err
	}
	if err := e.adoptRoutes(pod, s); err != nil {
		return err
	}
	if pod, err = find(e.pod, s.Ifname); err != nil { // its MAC may have changed
		return err
	}
	return e.announce(ctx, host, pod, s.prefixes())
}

// adoptLinks gives both ends the MTU and the pod end the MAC of s, and brings both up.
func (e *ends) adoptLinks(s Spec, host, pod netlink.Link) error {
	for _, end := range []struct {
		handle *netlink.Handle
		link   netlink.Link
	}{{e.pod, pod}, {e.host, host}} {
		a := end.link.Attrs()
		if s.MTU != 0 && a.MTU != s.MTU {
			if err := end.handle.LinkSetMTU(end.link, s.MTU); err != nil {
				return fmt.Errorf("podlink: set MTU %d of %s: %w", s.MTU, a.Name, err)
			}
		}
		if a.Flags&net.FlagUp == 0 {
			if err := end.handle.LinkSetUp(end.link); err != nil {
				return fmt.Errorf("podlink: bring up %s: %w", a.Name, err)
			}
		}
	}
	if mac := s.PodMAC(); !mac.IsZero() && mac != macOf(pod) {
		return e.adoptMAC(pod, mac)
	}
	return nil
}

// adoptMAC gives the pod end another MAC, and the link-local address that belongs to it: the kernel keeps the one of the old MAC.
func (e *ends) adoptMAC(pod netlink.Link, mac ether.Addr) error {
	name, before := pod.Attrs().Name, macOf(pod).LinkLocal()
	if err := e.pod.LinkSetHardwareAddr(pod, net.HardwareAddr(mac[:])); err != nil {
		return fmt.Errorf("podlink: set the MAC of %s: %w", name, err)
	}
	have, err := e.addresses(pod)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(have, func(p netip.Prefix) bool { return p.Addr() == before })
	if i < 0 {
		return nil
	}
	if err := e.removeAddress(pod, have[i]); err != nil {
		return err
	}
	return e.addAddress(pod, netip.PrefixFrom(mac.LinkLocal(), have[i].Bits()))
}

// adoptAddresses gives the pod end the addresses of s and removes those in drop. New ones come first, so that the kernel keeps routes with
// a gateway in both; but IPv6 does not have an address with two prefix lengths.
func (e *ends) adoptAddresses(pod netlink.Link, s Spec, drop []netip.Addr) error {
	have, err := e.addresses(pod)
	if err != nil {
		return err
	}
	want := s.prefixes()
	for _, p := range have {
		if !slices.Contains(want, p) && slices.ContainsFunc(want, func(w netip.Prefix) bool { return w.Addr() == p.Addr() }) {
			if err := e.removeAddress(pod, p); err != nil {
				return err
			}
		}
	}
	for _, p := range want {
		if slices.Contains(have, p) {
			continue
		}
		if err := e.addAddress(pod, p); err != nil {
			return err
		}
	}
	for _, p := range have {
		if slices.Contains(want, p) || !slices.Contains(drop, p.Addr()) {
			continue
		}
		if err := e.removeAddress(pod, p); err != nil {
			return err
		}
	}
	// With the first address of a subnet, the kernel removes the others, unless promote_secondaries is set.
	if have, err = e.addresses(pod); err != nil {
		return err
	}
	for _, p := range want {
		if !slices.Contains(have, p) {
			if err := e.addAddress(pod, p); err != nil {
				return err
			}
		}
	}
	return nil
}

// addAddress adds an address to the pod end.
func (e *ends) addAddress(pod netlink.Link, p netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	if err := e.pod.AddrAdd(pod, addr); err != nil {
		return fmt.Errorf("podlink: add %s to %s: %w", p, pod.Attrs().Name, err)
	}
	return nil
}

// removeAddress removes an address from the pod end, which may lack it.
func (e *ends) removeAddress(pod netlink.Link, p netip.Prefix) error {
	if err := e.pod.AddrDel(pod, &netlink.Addr{IPNet: ipNet(p)}); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
		return fmt.Errorf("podlink: remove %s from %s: %w", p, pod.Attrs().Name, err)
	}
	return nil
}

// adoptRoutes replaces default routes through the pod end by those of s, and adds the routes of s that are missing.
func (e *ends) adoptRoutes(pod netlink.Link, s Spec) error {
	for _, want := range s.Defaults() {
		present, err := e.routes(family(want.Dst.Addr()))
		if err != nil {
			return err
		}
		for _, r := range defaultsThrough(present, pod.Attrs().Index) {
			if err := reroute(e.pod, r, want.Gateway); err != nil {
				return err
			}
		}
	}
	missing, err := e.missingDefaults(s)
	if err != nil {
		return err
	}
	multicast, err := e.missingMulticast(pod, s)
	if err != nil {
		return err
	}
	missing = append(missing, multicast...)
	for _, r := range s.Routes {
		present, err := e.routes(family(r.Dst.Addr()))
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(present, r.is) {
			missing = append(missing, r)
		}
	}
	for _, r := range missing {
		if err := e.addRoute(pod, s, r); err != nil {
			return err
		}
	}
	return nil
}
