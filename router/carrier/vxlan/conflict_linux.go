package vxlan

import (
	"context"
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
	"sigs.k8s.io/knftables"

	"weft/internal/netdump"
	"weft/internal/netspace"
	"weft/internal/nftsum"
)

// Check returns an error if Open could not make a device of that name on that UDP port. It changes nothing and needs no
// privilege. A device that an earlier run left behind is no obstacle. The error wraps ErrNotOurs or ErrPortInUse.
func Check(name string, port uint16) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("vxlan: netlink: %w", err)
	}
	defer nl.Close()
	return check(nl, name, port)
}

func check(nl *netlink.Handle, name string, port uint16) error {
	links, err := netdump.Repeat(nl.LinkList)
	if err != nil {
		return fmt.Errorf("vxlan: list links: %w", err)
	}
	left := false // devices of weft, which may use the port
	for _, link := range links {
		attrs := link.Attrs()
		v, isVXLAN := link.(*netlink.Vxlan)
		switch {
		case isDevice(link, name):
			left = true
		case attrs.Name == name:
			return fmt.Errorf("vxlan: %s is a %s that weft did not make: %w: choose another name, or delete it (ip link del %s)",
				name, link.Type(), ErrNotOurs, name)
		case isVXLAN && v.Port == int(port):
			// With any VNI: the kernel would share the port, but the filter would block the other device.
			return fmt.Errorf("vxlan: %s is a VXLAN device on UDP port %d: %w: choose another --port on all nodes, or delete it "+
				"(\"ip -d link show type vxlan\" shows it)", attrs.Name, port, ErrNotOurs)
		}
	}
	if left {
		return nil
	}
	return checkPort(port)
}

// checkPort binds the UDP port for a test, as the kernel binds it only when the device comes up.
func checkPort(port uint16) error {
	var lc net.ListenConfig
	conn, err := lc.ListenPacket(context.Background(), "udp", fmt.Sprintf(":%d", port))
	if err != nil {
		if errors.Is(err, unix.EADDRINUSE) {
			err = fmt.Errorf("%w: stop the program that listens there (ss -lnup shows it), or choose another --port on all nodes: %w",
				ErrPortInUse, err)
		}
		return fmt.Errorf("vxlan: UDP port %d: %w", port, err)
	}
	return conn.Close()
}

// isOurs reports whether Open made link, in this run or an earlier one.
func isOurs(link netlink.Link) bool { return link.Type() == "vxlan" && link.Attrs().Alias == alias }

// KeptVNI returns the VNI of the device called name that an earlier run left on the host; 0: there is none. A node keeps it, so that the
// kernel goes on carrying frames while the daemon is restarted.
func KeptVNI(name string) uint32 {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return 0
	}
	defer nl.Close()
	link, err := nl.LinkByName(name)
	if err != nil || !isOurs(link) {
		return 0
	}
	v, ok := link.(*netlink.Vxlan)
	if !ok || v.VxlanId == wellKnownVNI {
		return 0
	}
	return uint32(v.VxlanId)
}

// Remove removes the device called name with those of its pairs, and its filter, which a crash left behind: a node that does not use the
// kernel path must not have a device that still delivers frames. removed reports whether there was a device; it is no error if there was
// none. The error wraps ErrNotOurs if weft did not make the device, which is then not changed.
func Remove(ctx context.Context, name string) (removed bool, err error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return false, fmt.Errorf("vxlan: netlink: %w", err)
	}
	defer nl.Close()
	if removed, err = removeLinks(nl, name); err != nil {
		return removed, err
	}
	// Without a device there is mostly no filter, as Close removes the filter last; but the kernel removes a device with its tunnel.
	if _, err := nftsum.Of(nftsum.Inet, tableName(name)); errors.Is(err, nftsum.ErrNoTable) {
		return removed, nil
	}
	nft, err := knftables.New(knftables.InetFamily, tableName(name))
	if err != nil {
		return removed, nil // without nftables there are no rules
	}
	return removed, (&filter{nft: nft}).remove(ctx)
}

// RemoveUnfiltered removes the device called name if an earlier run left it on the host, and its filter is gone: any host could send
// into the overlay until Open. removed reports whether it did so.
func RemoveUnfiltered(ctx context.Context, name string) (removed bool, err error) {
	if left, err := hasLinks(name); !left || err != nil {
		return false, err
	}
	if _, err := nftsum.Of(nftsum.Inet, tableName(name)); !errors.Is(err, nftsum.ErrNoTable) {
		return false, err
	}
	return Remove(ctx, name)
}

// hasLinks reports whether an earlier run left the device called name on the host, or one of its pairs.
func hasLinks(name string) (bool, error) {
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		return false, fmt.Errorf("vxlan: list links: %w", err)
	}
	return slices.ContainsFunc(links, func(l netlink.Link) bool { return isDevice(l, name) }), nil
}

// isDevice reports whether a link is the device called name or one of its pairs, of this run or an earlier one.
func isDevice(link netlink.Link, name string) bool {
	return isOurs(link) && (link.Attrs().Name == name || IsPair(name, link.Attrs().Name))
}

// RemoveFrom removes all devices of weft that are ports of a bridge, but those with the names of except, and their filters: a
// run with another port left them behind. It is no error if there is none, or no bridge.
func RemoveFrom(ctx context.Context, bridge string, except ...string) error {
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("vxlan: netlink: %w", err)
	}
	master := 0
	for _, link := range links {
		if link.Attrs().Name == bridge {
			master = link.Attrs().Index
		}
	}
	var errs []error
	for _, link := range links {
		if master != 0 && link.Attrs().MasterIndex == master && isOurs(link) && !slices.Contains(except, link.Attrs().Name) {
			_, err := Remove(ctx, link.Attrs().Name)
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// removeLinks deletes the device called name and those of its pairs, if weft made them. removed reports whether there was the former.
func removeLinks(nl *netlink.Handle, name string) (removed bool, err error) {
	links, err := netdump.Repeat(nl.LinkList)
	if err != nil {
		return false, fmt.Errorf("vxlan: list links: %w", err)
	}
	var errs []error
	for _, link := range links {
		if isOurs(link) && IsPair(name, link.Attrs().Name) {
			_, err := removeLink(nl, link.Attrs().Name)
			errs = append(errs, err)
		}
	}
	removed, err = removeLink(nl, name)
	return removed, errors.Join(append(errs, err)...)
}

// removeLink deletes the device called name if weft made it.
func removeLink(nl *netlink.Handle, name string) (removed bool, err error) {
	link, err := nl.LinkByName(name)
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("vxlan: %s: %w", name, err)
	}
	if !isOurs(link) {
		return false, fmt.Errorf("vxlan: %s is a %s that weft did not make: %w: left alone", name, link.Type(), ErrNotOurs)
	}
	if err := nl.LinkDel(link); err != nil {
		return false, fmt.Errorf("vxlan: delete %s: %w", name, err)
	}
	return true, nil
}

// inside calls f in the device's network namespace.
func (d *Device) inside(f func() error) error { return netspace.Do(d.ns, f) }
