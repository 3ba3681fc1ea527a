package bridge

import (
	"errors"
	"fmt"
	"net"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/netdump"
)

// Rename gives the bridge with the MAC back its name, if no link has the name now: another program has renamed it. The MAC is that of
// one node, which no other bridge has; an alias may have been overwritten. A second bridge beside it would have the same addresses, and
// none of its ports. It is no error if there is no such bridge.
func Rename(name string, mac ether.Addr) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("bridge: %s: netlink: %w", name, err)
	}
	defer nl.Close()
	links, err := netdump.Repeat(nl.LinkList)
	if err != nil {
		return fmt.Errorf("bridge: look for %s: %w", name, err)
	}
	if slices.ContainsFunc(links, func(l netlink.Link) bool { return l.Attrs().Name == name }) {
		return nil
	}
	for _, l := range links {
		if a := l.Attrs(); l.Type() == "bridge" && slices.Equal(a.HardwareAddr, net.HardwareAddr(mac[:])) {
			return setName(nl, l, name)
		}
	}
	return nil
}

// SetName gives any link another name.
func SetName(from, to string) error {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("bridge: %s: netlink: %w", from, err)
	}
	defer nl.Close()
	link, err := nl.LinkByName(from)
	if err != nil {
		return fmt.Errorf("bridge: %s: %w", from, err)
	}
	return setName(nl, link, to)
}

// setName renames a link. Kernels before 6.2 rename no link that is up.
func setName(nl *netlink.Handle, link netlink.Link, to string) error {
	err := nl.LinkSetName(link, to)
	if errors.Is(err, unix.EBUSY) {
		err = errors.Join(nl.LinkSetDown(link), nl.LinkSetName(link, to), nl.LinkSetUp(link))
	}
	if err != nil {
		return fmt.Errorf("bridge: rename %s to %s: %w", link.Attrs().Name, to, err)
	}
	return nil
}
