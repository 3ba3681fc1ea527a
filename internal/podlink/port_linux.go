package podlink

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/netdump"
)

// Ports returns the host ends that are ports of a bridge, without their Addrs. It returns none if there is no such bridge.
func Ports(bridge string) ([]Port, error) {
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("podlink: list links: %w", err)
	}
	master := -1
	for _, l := range links {
		if l.Attrs().Name == bridge && l.Type() == "bridge" {
			master = l.Attrs().Index
		}
	}
	var ports []Port
	for _, l := range links {
		if a := l.Attrs(); a.MasterIndex == master && l.Type() == typeVeth && strings.HasPrefix(a.Name, HostPrefix) {
			ports = append(ports, Port{Name: a.Name, Delegated: ParseOrigin(a.Alias).Delegated, MTU: a.MTU,
				index: a.Index, peer: a.ParentIndex, netns: a.NetNsID})
		}
	}
	return ports, nil
}

// Look sets Addrs and Err. It returns false if the port does not exist any more; then Addrs means nothing.
//
// It enters no namespace: the kernel lists the addresses of another one (RTM_GETADDR with IFA_TARGET_NETNSID, rtnetlink(7)).
func (p *Port) Look() bool {
	p.Addrs, p.Err = nil, nil
	if p.netns < 0 {
		p.Err = fmt.Errorf("podlink: the other end of %s is not in the namespace of a pod", p.Name)
	}
	for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
		if p.Err != nil {
			break
		}
		var addrs []netip.Addr
		addrs, p.Err = addressesIn(p.netns, p.peer, family)
		p.Addrs = append(p.Addrs, addrs...)
	}
	l, err := netlink.LinkByName(p.Name)
	if err != nil {
		_, gone := errors.AsType[netlink.LinkNotFoundError](err)
		return !gone
	}
	return l.Attrs().Index == p.index
}

// addressesIn returns the addresses of one family of an interface, by its index and the ID of its namespace, without link-local ones.
func addressesIn(netns, index, family int) ([]netip.Addr, error) {
	addrs, err := everyAddressIn(netns, index, family)
	return slices.DeleteFunc(addrs, netip.Addr.IsLinkLocalUnicast), err
}

// everyAddressIn is addressesIn with link-local addresses.
func everyAddressIn(netns, index, family int) ([]netip.Addr, error) {
	msg := nl.NewIfAddrmsg(family)
	msg.Index = uint32(index)
	answers, err := dumpIn(unix.RTM_GETADDR, unix.RTM_NEWADDR, msg, nl.NewRtAttr(unix.IFA_TARGET_NETNSID, nl.Uint32Attr(uint32(netns))))
	if err != nil && (family != netlink.FAMILY_V6 || !noIPv6(err)) {
		return nil, fmt.Errorf("podlink: list addresses of another namespace: %w", err)
	}
	var addrs []netip.Addr
	for _, answer := range answers {
		if addr, ok := parseAddress(answer, index, family); ok {
			addrs = append(addrs, addr)
		}
	}
	return addrs, nil
}

// dumpIn lists something of another namespace, which attr names. The error wraps ErrOldKernel where the kernel would ignore attr, and list
// what is in this namespace.
func dumpIn(request int, answer uint16, msg, attr nl.NetlinkRequestData) ([][]byte, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE) // to no group; strict checking is a property of the socket, so this needs one of its own
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	defer s.Close()
	if err := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); errors.Is(err, unix.ENOPROTOOPT) {
		return nil, ErrOldKernel
	} else if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if err := errors.Join(s.SetSendTimeout(&nl.SocketTimeoutTv), s.SetReceiveTimeout(&nl.SocketTimeoutTv)); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	req := nl.NewNetlinkRequest(request, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	req.AddData(msg)
	req.AddData(attr)
	return netdump.Repeat(func() ([][]byte, error) { return req.Execute(unix.NETLINK_ROUTE, answer) })
}

// parseAddress returns the address in an RTM_NEWADDR message; not ok if it is of another interface or family.
func parseAddress(answer []byte, index, family int) (addr netip.Addr, ok bool) {
	if len(answer) < unix.SizeofIfAddrmsg {
		return addr, false
	}
	msg := nl.DeserializeIfAddrmsg(answer)
	if int(msg.Index) != index || int(msg.Family) != family {
		return addr, false
	}
	attrs, err := nl.ParseRouteAttr(answer[msg.Len():])
	if err != nil {
		return addr, false
	}
	for _, a := range attrs {
		// On a point-to-point link IFA_ADDRESS is that of the other end, and IFA_LOCAL the interface's own.
		if a.Attr.Type == unix.IFA_LOCAL || a.Attr.Type == unix.IFA_ADDRESS && !addr.IsValid() {
			addr, _ = netip.AddrFromSlice(a.Value)
		}
	}
	return addr, addr.IsValid()
}
