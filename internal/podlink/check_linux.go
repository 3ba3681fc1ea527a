package podlink

import (
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
)

// checkEnds compares the two ends of the pair with s.
func (e *ends) checkEnds(s Spec, host, pod, bridge netlink.Link) error {
	if !e.isPair(host, pod) {
		return fmt.Errorf("podlink: %s is not the other end of %s", s.HostName, s.Ifname)
	}
	if host.Attrs().MasterIndex != bridge.Attrs().Index {
		return fmt.Errorf("podlink: %s is not a port of %s", s.HostName, s.Bridge)
	}
	for _, l := range []netlink.Link{host, pod} {
		if l.Attrs().Flags&net.FlagUp == 0 {
			return fmt.Errorf("podlink: %s is down", l.Attrs().Name)
		}
	}
	if mac := macOf(pod); !s.MAC.IsZero() && mac != s.MAC {
		return fmt.Errorf("podlink: %s has MAC %s, not %s", s.Ifname, mac, s.MAC)
	}
	if mtu := pod.Attrs().MTU; s.MTU != 0 && mtu != s.MTU {
		return fmt.Errorf("podlink: %s has MTU %d, not %d", s.Ifname, mtu, s.MTU)
	}
	return nil
}

// checkNetwork returns an error if an address or route of s is missing. Any default route is accepted, because Attach keeps an
// existing one.
func (e *ends) checkNetwork(s Spec, pod netlink.Link) error {
	have, err := e.addresses(pod)
	if err != nil {
		return err
	}
	for _, p := range s.prefixes() {
		if !slices.Contains(have, p) {
			return fmt.Errorf("podlink: %s lacks the address %s", s.Ifname, p)
		}
	}
	missing, err := e.missingDefaults(s)
	if err != nil {
		return err
	}
	if len(missing) > 0 {
		return fmt.Errorf("podlink: no default route via %s", missing[0].Gateway)
	}
	multicast, err := e.missingMulticast(pod, s)
	if err != nil {
		return err
	}
	if len(multicast) > 0 {
		return fmt.Errorf("podlink: no route to %s", multicast[0].Dst)
	}
	for _, r := range s.Routes {
		present, err := e.routes(family(r.Dst.Addr()))
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(present, r.is) {
			return fmt.Errorf("podlink: no route to %s via %s", r.Dst, r.Gateway)
		}
	}
	return nil
}

// is reports whether a route of the kernel is r.
func (r Route) is(k netlink.Route) bool {
	gw, _ := netip.AddrFromSlice(k.Gw)
	return dstOf(k) == r.Dst.Masked() && gw.Unmap() == r.Gateway
}
