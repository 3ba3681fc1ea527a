package podlink

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Ports returns the host ends that are ports of a bridge, without their Addrs; none where there is no such bridge.
func Ports(bridge string) ([]Port, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("podlink: listing links: %w", err)
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
			ports = append(ports, Port{Name: a.Name, Foreign: a.Alias == foreignAlias, index: a.Index, peer: a.ParentIndex, netns: a.NetNsID})
		}
	}
	return ports, nil
}

// Look sets Addrs and Err. It reports whether the port is there still: a pair that went meanwhile has no addresses.
//
// It enters no namespace: the kernel tells the addresses of another one (RTM_GETADDR with IFA_TARGET_NETNSID, rtnetlink(7)).
func (p *Port) Look() bool {
	p.Addrs, p.Err = nil, nil
	if p.netns < 0 {
		p.Err = fmt.Errorf("podlink: the other end of %s is in no namespace of a pod", p.Name)
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

// addressesIn returns the addresses of one family that the interface with an index has in the namespace that has a number here.
func addressesIn(netns, index, family int) ([]netip.Addr, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE) // to nothing: a socket of its own, as strictness is the socket's
	if err != nil {
		return nil, fmt.Errorf("podlink: netlink: %w", err)
	}
	defer s.Close()
	if err := unix.SetsockoptInt(s.GetFd(), unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1); errors.Is(err, unix.ENOPROTOOPT) {
		return nil, ErrOldKernel // which would leave the namespace out, and answer for this one
	} else if err != nil {
		return nil, fmt.Errorf("podlink: netlink: %w", err)
	}
	if err := errors.Join(s.SetSendTimeout(&nl.SocketTimeoutTv), s.SetReceiveTimeout(&nl.SocketTimeoutTv)); err != nil {
		return nil, fmt.Errorf("podlink: netlink: %w", err)
	}
	req := nl.NewNetlinkRequest(unix.RTM_GETADDR, unix.NLM_F_DUMP)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_ROUTE: {Socket: s}}
	msg := nl.NewIfAddrmsg(family)
	msg.Index = uint32(index)
	req.AddData(msg)
	req.AddData(nl.NewRtAttr(unix.IFA_TARGET_NETNSID, nl.Uint32Attr(uint32(netns))))
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWADDR)
	if err != nil && (family != netlink.FAMILY_V6 || !noIPv6(err)) {
		return nil, fmt.Errorf("podlink: addresses in another namespace: %w", err)
	}
	var addrs []netip.Addr
	for _, answer := range answers {
		if addr, ok := parseAddress(answer, index, family); ok && !addr.IsLinkLocalUnicast() {
			addrs = append(addrs, addr)
		}
	}
	return addrs, nil
}

// parseAddress returns the interface's own address of an RTM_NEWADDR, if that is of the interface and the family.
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
		// IFA_ADDRESS is the other side's where there are two; then the own one is IFA_LOCAL.
		if a.Attr.Type == unix.IFA_LOCAL || a.Attr.Type == unix.IFA_ADDRESS && !addr.IsValid() {
			addr, _ = netip.AddrFromSlice(a.Value)
		}
	}
	return addr, addr.IsValid()
}
