package podlink

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/netdump"
)

// configure adds the addresses of the pod end, brings it up, adds its routes and returns them.
func (e *ends) configure(pod netlink.Link, s Spec) ([]Route, error) {
	if err := e.setSysctls(s); err != nil {
		return nil, err
	}
	for _, p := range s.prefixes() {
		if err := e.addAddress(pod, p); err != nil {
			return nil, err
		}
	}
	if err := e.pod.LinkSetUp(pod); err != nil {
		return nil, fmt.Errorf("podlink: bring up %s: %w", s.Ifname, err)
	}
	defaults, err := e.missingDefaults(s)
	if err != nil {
		return nil, err
	}
	multicast, err := e.missingMulticast(pod, s)
	if err != nil {
		return nil, err
	}
	routes := slices.Concat(defaults, multicast, s.Routes)
	for _, r := range routes {
		if err := e.addRoute(pod, s, r); err != nil {
			return nil, err
		}
	}
	return routes, nil
}

// setSysctls turns off duplicate address detection, because allocation makes addresses unique, and router advertisements, because
// only the Spec determines addresses and routes. Runtimes turn IPv6 off in new namespaces; setSysctls turns it on if s has an
// IPv6 address.
func (e *ends) setSysctls(s Spec) error {
	settings := [][2]string{{"accept_dad", "0"}, {"accept_ra", "0"}, {"autoconf", "0"}}
	want6 := false
	for _, a := range s.Addresses {
		want6 = want6 || a.Prefix.Addr().Is6()
	}
	if want6 {
		settings = append(settings, [2]string{"disable_ipv6", "0"})
	}
	return e.space.Do(func(ns.NetNS) error {
		for _, v := range settings {
			path := filepath.Join("/proc/sys/net/ipv6/conf", s.Ifname, v[0])
			err := os.WriteFile(path, []byte(v[1]), 0)
			if errors.Is(err, fs.ErrNotExist) && !want6 {
				return nil
			} else if err != nil {
				return fmt.Errorf("podlink: IPv6 settings of %s: %w", s.Ifname, err)
			}
		}
		return nil
	})
}

// missingDefaults returns the default routes of s for families without a default route in the namespace.
func (e *ends) missingDefaults(s Spec) ([]Route, error) {
	var missing []Route
	for _, r := range s.Defaults() {
		present, err := e.routes(family(r.Dst.Addr()))
		if err != nil {
			return nil, err
		}
		if !hasDefault(present) {
			missing = append(missing, r)
		}
	}
	return missing, nil
}

// missingMulticast returns the route for multicast of s if it is needed: the default route of the namespace leads through another
// interface, and it has no such route.
func (e *ends) missingMulticast(pod netlink.Link, s Spec) ([]Route, error) {
	r, ok := s.Multicast()
	if !ok {
		return nil, nil
	}
	present, err := e.routes(netlink.FAMILY_V4)
	if err != nil {
		return nil, err
	}
	known := slices.ContainsFunc(present, func(k netlink.Route) bool { return dstOf(k) == r.Dst })
	if known || !hasDefault(present) || len(defaultsThrough(present, pod.Attrs().Index)) > 0 {
		return nil, nil
	}
	return []Route{r}, nil
}

func hasDefault(routes []netlink.Route) bool {
	for _, r := range routes {
		if p := dstOf(r); p.IsValid() && p.Bits() == 0 && r.Type == unix.RTN_UNICAST {
			return true
		}
	}
	return false
}

func (e *ends) addRoute(pod netlink.Link, s Spec, r Route) error {
	route := &netlink.Route{LinkIndex: pod.Attrs().Index, Dst: ipNet(r.Dst.Masked())}
	if r.Gateway.IsValid() {
		route.Gw = r.Gateway.AsSlice()
		if !s.onLink(r.Gateway) {
			route.Flags = int(netlink.FLAG_ONLINK)
		}
	} else {
		route.Scope = netlink.SCOPE_LINK
	}
	if err := e.pod.RouteAdd(route); err != nil {
		return fmt.Errorf("podlink: add route to %s via %s: %w", r.Dst, r.Gateway, err)
	}
	return nil
}

// onLink reports whether ip is in the subnet of one of the addresses.
func (s Spec) onLink(ip netip.Addr) bool {
	for _, a := range s.Addresses {
		if a.Prefix.Contains(ip) {
			return true
		}
	}
	return false
}

// routes returns the routes of one family in the main table of the pod's namespace.
func (e *ends) routes(family int) ([]netlink.Route, error) { return mainRoutes(e.pod, family) }

// addresses returns all addresses of the pod end.
func (e *ends) addresses(pod netlink.Link) ([]netip.Prefix, error) {
	list, err := netdump.Repeat(func() ([]netlink.Addr, error) { return e.pod.AddrList(pod, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("podlink: addresses of %s: %w", pod.Attrs().Name, err)
	}
	var out []netip.Prefix
	for _, a := range list {
		if p := prefixOf(a.IPNet); p.IsValid() {
			out = append(out, p)
		}
	}
	return out, nil
}

func family(ip netip.Addr) int {
	if ip.Is4() {
		return netlink.FAMILY_V4
	}
	return netlink.FAMILY_V6
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf returns n as a netip.Prefix, an invalid one for nil.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ip, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 8*net.IPv4len {
		ip = ip.Unmap()
	}
	return netip.PrefixFrom(ip, bits)
}

// dstOf returns the destination of a route. The kernel may omit that of a default route.
func dstOf(r netlink.Route) netip.Prefix {
	if r.Dst != nil {
		return prefixOf(r.Dst)
	}
	if r.Family == netlink.FAMILY_V6 {
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}
