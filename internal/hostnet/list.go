package hostnet

import (
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/netdump"
)

// Address is an address of this host, with what is known about its interface.
type Address struct {
	Addr       netip.Addr // without a zone
	Link       string     // name of the interface
	Virtual    bool       // the interface is none of hardware, nor one on top of it: a bridge or a pair, such as those of containers
	MTU        int        // of the interface, in bytes
	Up         bool       // the interface is up
	Loopback   bool       // the interface is the loopback
	Deprecated bool       // its preferred lifetime has ended: it must not be used for new connections (RFC 4862, section 5.5.4)
	Tentative  bool       // duplicate address detection has not ended, or has failed: it cannot be used yet
}

// Addresses returns the addresses of this host, in the order of the kernel.
func Addresses() ([]Address, error) {
	addrs, err := netdump.Repeat(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("hostnet: list addresses: %w", err)
	}
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("hostnet: list links: %w", err)
	}
	byIndex, kinds := map[int]*netlink.LinkAttrs{}, map[int]string{}
	for _, l := range links {
		byIndex[l.Attrs().Index], kinds[l.Attrs().Index] = l.Attrs(), l.Type()
	}
	list := make([]Address, 0, len(addrs))
	for _, a := range addrs {
		addr, ok := netip.AddrFromSlice(a.IP)
		link := byIndex[a.LinkIndex]
		if !ok || link == nil { // the interface was removed between the two lists
			continue
		}
		list = append(list, Address{
			Addr: addr.Unmap(), Link: link.Name, Virtual: virtual(kinds[a.LinkIndex]), MTU: link.MTU,
			Up: link.Flags&net.FlagUp != 0, Loopback: link.Flags&net.FlagLoopback != 0,
			Deprecated: a.Flags&unix.IFA_F_DEPRECATED != 0, Tentative: a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0,
		})
	}
	return list, nil
}

// virtual reports whether links of a kind are neither hardware nor on top of it.
func virtual(kind string) bool {
	switch kind {
	case "device", "bond", "team", "vlan", "ipvlan", "macvlan":
		return false
	}
	return true
}

// find returns the address a among those of this host, with an interface that is up if one of those that have it is.
func find(list []Address, a netip.Addr) (found Address, ok bool) {
	for _, own := range list {
		if own.Addr == a.Unmap() && (!ok || own.Up && !found.Up) {
			found, ok = own, true
		}
	}
	return found, ok
}

// IsLocal reports whether a is an address of this host.
func IsLocal(a netip.Addr) (bool, error) {
	addrs, err := netdump.Repeat(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return false, fmt.Errorf("hostnet: list addresses: %w", err)
	}
	for _, own := range addrs {
		if addr, ok := netip.AddrFromSlice(own.IP); ok && addr.Unmap() == a.Unmap() {
			return true, nil
		}
	}
	return false, nil
}

// ContainerSubnets returns the subnets of bridges that only have virtual ports, such as those of Docker: what is in them is on this host. A
// bridge with a port of hardware leads elsewhere, and so may a link-local address.
func ContainerSubnets() ([]netip.Prefix, error) {
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("hostnet: list links: %w", err)
	}
	closed := map[int]bool{}
	for _, l := range links {
		closed[l.Attrs().Index] = l.Type() == "bridge"
	}
	for _, l := range links {
		if !virtual(l.Type()) {
			closed[l.Attrs().MasterIndex] = false
		}
	}
	addrs, err := netdump.Repeat(func() ([]netlink.Addr, error) { return netlink.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return nil, fmt.Errorf("hostnet: list addresses: %w", err)
	}
	var list []netip.Prefix
	for _, a := range addrs {
		ip, ok := netip.AddrFromSlice(a.IP)
		if bits, _ := a.Mask.Size(); ok && closed[a.LinkIndex] && !ip.Unmap().IsLinkLocalUnicast() {
			list = append(list, netip.PrefixFrom(ip.Unmap(), bits).Masked())
		}
	}
	return list, nil
}

// UnderlayMTU returns the MTU in bytes of the interface that has the address self; 1500 where no interface has it, as behind a
// NAT.
func UnderlayMTU(self netip.Addr) (int, error) {
	list, err := Addresses()
	if err != nil {
		return 0, err
	}
	return mtuOf(list, self), nil
}

// mtuOf returns the MTU in bytes of the interface that has the address self; 1500 where no interface has it.
func mtuOf(list []Address, self netip.Addr) int {
	if own, ok := find(list, self); ok {
		return min(own.MTU, MaxMTU)
	}
	return defaultMTU
}
