package hostnet

import (
	"fmt"
	"runtime"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/api"
	"weft/internal/netdump"
)

// maxRoutes bounds how many routes Facts reports: an Internet router has a million.
const maxRoutes = 4096

// KernelRelease returns the version of the running kernel.
func KernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return "of unknown version"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Facts returns what a bug report says about the host: kernel, CPUs, links with their addresses, and routes.
func Facts() api.Host {
	h := api.Host{Kernel: KernelRelease(), Arch: runtime.GOARCH, CPUs: runtime.NumCPU(), Go: runtime.Version()}
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		h.Errors = append(h.Errors, err.Error())
	}
	names := map[int]string{}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	for _, l := range links {
		a := l.Attrs()
		doc := api.HostLink{
			Name: a.Name, Kind: l.Type(), MTU: a.MTU, Master: names[a.MasterIndex], State: a.OperState.String(), Addresses: []string{},
		}
		addrs, err := netdump.Repeat(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_ALL) })
		if err != nil {
			h.Errors = append(h.Errors, err.Error())
		}
		for _, addr := range addrs {
			doc.Addresses = append(doc.Addresses, addr.IPNet.String())
		}
		h.Links = append(h.Links, doc)
	}
	routes, err := netdump.Repeat(func() ([]netlink.Route, error) { return netlink.RouteList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		h.Errors = append(h.Errors, err.Error())
	}
	texts, omitted := routeTexts(routes, names)
	if h.Routes = texts; omitted > 0 {
		h.Errors = append(h.Errors, fmt.Sprintf("%d more routes are omitted", omitted))
	}
	return h
}

// routeText writes a route as "ip route" does; names are those of the interfaces, by index.
func routeText(r netlink.Route, names map[int]string) string {
	text := r.Dst.String()
	if r.Gw != nil {
		text += " via " + r.Gw.String()
	}
	if name := names[r.LinkIndex]; name != "" {
		text += " dev " + name
	}
	return text
}

// routeTexts returns routes as text, and how many it omitted.
func routeTexts(routes []netlink.Route, names map[int]string) (texts []string, omitted int) {
	for _, r := range routes[:min(len(routes), maxRoutes)] {
		texts = append(texts, routeText(r, names))
	}
	return texts, len(routes) - len(texts)
}
