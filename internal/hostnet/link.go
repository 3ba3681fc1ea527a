package hostnet

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/vishvananda/netlink"
)

// MaxMTU is the largest MTU in bytes that a TAP accepts.
const MaxMTU = 65521

// defaultMTU is assumed where no interface has the node's address, as behind a NAT.
const defaultMTU = 1500

// LinkExists reports whether the host has an interface of that name. Where the kernel does not answer, it returns true:
// callers remove state of links that do not exist.
func LinkExists(name string) bool {
	_, err := netlink.LinkByName(name)
	_, absent := errors.AsType[netlink.LinkNotFoundError](err)
	return !absent
}

// LinkName returns the name of the interface with the given index, or "link N" where it has vanished.
func LinkName(index int) string {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return "link " + strconv.Itoa(index)
	}
	return link.Attrs().Name
}

// PrefixOf converts a network of package net; ok is false for nil and for a mask that is no prefix length.
func PrefixOf(n *net.IPNet) (prefix netip.Prefix, ok bool) {
	if n == nil {
		return netip.Prefix{}, false
	}
	addr, ok := netip.AddrFromSlice(n.IP)
	ones, bits := n.Mask.Size()
	if !ok || bits == 0 {
		return netip.Prefix{}, false
	}
	return netip.PrefixFrom(addr.Unmap(), ones), true
}

// LinkOf returns the name of the interface that has an address; empty where there is none.
func LinkOf(self netip.Addr) string {
	list, err := Addresses()
	if err != nil {
		return ""
	}
	own, _ := find(list, self)
	return own.Link
}

// AddrsOf returns the addresses of the interface called name; none where it does not exist.
func AddrsOf(name string) (addrs []netip.Addr, err error) {
	list, err := Addresses()
	for _, a := range list {
		if a.Link == name {
			addrs = append(addrs, a.Addr)
		}
	}
	return addrs, err
}

// Exposed reports whether the interface called name has an address in one of the ranges.
func Exposed(name string, ranges []netip.Prefix) bool {
	addrs, err := AddrsOf(name)
	return err == nil && slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return slices.ContainsFunc(addrs, r.Contains) })
}
