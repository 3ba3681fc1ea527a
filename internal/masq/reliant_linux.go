package masq

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/netdump"
)

// reliant returns the interfaces on which the host relies on router advertisements: those with a route or an address from one, and
// network cards, as their first advertisement may still come. Ports of a bridge are not among them.
func reliant() ([]string, error) {
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("masq: list links: %w", err)
	}
	routes, err := netdump.Repeat(func() ([]netlink.Route, error) {
		return netlink.RouteListFiltered(netlink.FAMILY_V6, &netlink.Route{Protocol: unix.RTPROT_RA}, netlink.RT_FILTER_PROTOCOL)
	})
	if err != nil {
		return nil, fmt.Errorf("masq: list routes: %w", err)
	}
	addrs, err := netdump.Repeat(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_V6) })
	if err != nil {
		return nil, fmt.Errorf("masq: list addresses: %w", err)
	}
	relies := map[int]bool{}
	for _, r := range routes {
		relies[r.LinkIndex] = true
		for _, hop := range r.MultiPath {
			relies[hop.LinkIndex] = true
		}
	}
	for _, a := range addrs {
		if a.Flags&unix.IFA_F_PERMANENT == 0 && !a.IP.IsLinkLocalUnicast() { // it expires unless an advertisement renews it
			relies[a.LinkIndex] = true
		}
	}
	var names []string
	for _, l := range links {
		attrs := l.Attrs()
		if attrs.MasterIndex == 0 && !isOurs(l) && (relies[attrs.Index] || isCard(attrs.Name)) {
			names = append(names, attrs.Name)
		}
	}
	slices.Sort(names)
	return names, nil
}

// isCard reports whether an interface belongs to a device of the machine.
func isCard(name string) bool {
	_, err := os.Stat(filepath.Join("/sys/class/net", name, "device"))
	return err == nil
}

// isOurs reports whether weft made a bridge, which has its alias (package tap/bridge).
func isOurs(l netlink.Link) bool { return l.Type() == "bridge" && l.Attrs().Alias == "weft" }
