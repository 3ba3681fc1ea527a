package podlink

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"weft/internal/netdump"
)

// Gateway is the next hop of a default route of a pod that leads through its pair.
type Gateway struct {
	Port string // name of the host end
	Addr netip.Addr
}

// Gateways returns the gateways of the pods behind some ports, in any order, and the ports of pods that hide their routes: no file of this
// host leads into their namespaces, or the kernel does not list them.
func Gateways(ports []Port) (found []Gateway, hidden []Port) {
	seen, err := eachDefault(ports, func(_ *netlink.Handle, p Port, r netlink.Route) error {
		addr, _ := netip.AddrFromSlice(r.Gw)
		found = append(found, Gateway{p.Name, addr.Unmap()})
		return nil
	})
	for _, p := range ports {
		if err != nil || p.netns >= 0 && !seen[p.netns] {
			hidden = append(hidden, p)
		}
	}
	return found, hidden
}

// Reroute gives default routes of the pods behind some ports another gateway. next returns it for the present one, or the same. Pods
// that hide their routes keep them.
func Reroute(ports []Port, next func(old netip.Addr) netip.Addr) error {
	_, err := eachDefault(ports, func(h *netlink.Handle, _ Port, r netlink.Route) error {
		old, _ := netip.AddrFromSlice(r.Gw)
		return reroute(h, r, next(old.Unmap()))
	})
	return err
}

// eachDefault calls f for each default route through the pair of each port, with netlink in the namespace of the pod. It returns the IDs
// of the namespaces that it has entered.
func eachDefault(ports []Port, f func(h *netlink.Handle, p Port, r netlink.Route) error) (seen map[int]bool, err error) {
	seen = map[int]bool{}
	behind := map[int][]Port{} // by the ID of the namespace
	var ids []int
	for _, p := range ports {
		if p.netns < 0 {
			continue // it is in no pod
		}
		behind[p.netns] = append(behind[p.netns], p)
		ids = append(ids, p.netns)
	}
	var errs []error
	enterSpaces(ids, func(fd netns.NsHandle, id int) {
		seen[id] = true
		h, err := netlink.NewHandleAt(fd, unix.NETLINK_ROUTE)
		if err != nil {
			errs = append(errs, fmt.Errorf("podlink: netlink in the namespace of %s: %w", behind[id][0].Name, err))
			return
		}
		defer h.Close()
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := mainRoutes(h, family)
			errs = append(errs, err)
			for _, p := range behind[id] {
				for _, r := range defaultsThrough(routes, p.peer) {
					errs = append(errs, f(h, p, r))
				}
			}
		}
	})
	return seen, errors.Join(errs...)
}

// mainRoutes returns the routes of one family in the main table of the namespace of h.
func mainRoutes(h *netlink.Handle, family int) ([]netlink.Route, error) {
	filter := &netlink.Route{Table: unix.RT_TABLE_MAIN}
	routes, err := netdump.Repeat(func() ([]netlink.Route, error) {
		return h.RouteListFiltered(family, filter, netlink.RT_FILTER_TABLE)
	})
	if err != nil && !noIPv6(err) {
		return nil, fmt.Errorf("podlink: list routes: %w", err)
	}
	return routes, nil
}

// defaultsThrough returns the default routes among routes that lead through the interface with the given index to a gateway.
func defaultsThrough(routes []netlink.Route, index int) (defaults []netlink.Route) {
	for _, r := range routes {
		if p := dstOf(r); p.IsValid() && p.Bits() == 0 && r.Type == unix.RTN_UNICAST && r.LinkIndex == index && r.Gw != nil {
			defaults = append(defaults, r)
		}
	}
	return defaults
}

// reroute gives a route another gateway; one that has it already stays.
func reroute(h *netlink.Handle, r netlink.Route, gateway netip.Addr) error {
	if old, ok := netip.AddrFromSlice(r.Gw); ok && old.Unmap() == gateway {
		return nil
	}
	next := r
	next.Gw = gateway.AsSlice()
	// The gateway may be outside the subnet of the pod's address. The flags that the kernel lists, such as that of a link without a carrier,
	// are refused in a request.
	next.Flags = int(netlink.FLAG_ONLINK)
	if err := h.RouteReplace(&next); err != nil {
		return fmt.Errorf("podlink: change the gateway of a default route to %s: %w", gateway, err)
	}
	return nil
}
