package live

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/hoststate"
)

// Apply applies an action of any kind but MakeBridge and Rename, for which package bridge is there.
func (h *Host) Apply(a hoststate.Action) error {
	if err := h.apply(a); err != nil {
		return fmt.Errorf("live: %s: %w", a, err)
	}
	return nil
}

func (h *Host) apply(a hoststate.Action) error {
	if a.Kind == hoststate.Set {
		return writeSetting(a.Path, a.Text)
	}
	link, err := h.handle.LinkByName(a.Link)
	if err != nil {
		return err
	}
	switch a.Kind {
	case hoststate.SetAlias:
		return h.handle.LinkSetAlias(link, a.Text)
	case hoststate.SetMaster:
		return h.setMaster(link, a)
	case hoststate.SetUp:
		return h.handle.LinkSetUp(link)
	case hoststate.SetMTU:
		return h.handle.LinkSetMTU(link, a.MTU)
	case hoststate.SetMAC:
		return h.handle.LinkSetHardwareAddr(link, net.HardwareAddr(a.MAC[:]))
	case hoststate.AddMAC:
		return h.addMAC(link, a.MAC)
	case hoststate.SetARP:
		return h.handle.LinkSetARPOn(link)
	case hoststate.SetFlag:
		return h.setFlag(link, a.Flag, a.On)
	case hoststate.SetOption:
		return h.setOption(link, a.Option, a.Value)
	case hoststate.AddAddress:
		return h.addAddress(link, a.Prefix)
	case hoststate.AddRoute:
		return h.addRoute(link, a.Prefix)
	case hoststate.AddLocal:
		return h.addLocal(link, a.Prefix)
	default:
		return errors.ErrUnsupported
	}
}

// setMaster makes a link a port of a bridge. A tunnel is isolated before it is up, as it may be a loop.
func (h *Host) setMaster(link netlink.Link, a hoststate.Action) error {
	master, err := h.handle.LinkByName(a.Master)
	if err != nil {
		return err
	}
	if !a.Tunnel {
		return h.handle.LinkSetMaster(link, master)
	}
	return errors.Join(
		h.handle.LinkSetDown(link),
		h.handle.LinkSetMaster(link, master),
		h.setFlag(link, hoststate.Isolated, true),
		h.handle.LinkSetUp(link),
	)
}

// setFlag sets a flag of a bridge's port.
func (h *Host) setFlag(link netlink.Link, flag hoststate.Flag, on bool) error {
	kind, value := uint16(nl.IFLA_BRPORT_STATE), byte(0)
	if on {
		value = 1
	}
	if flag == hoststate.Forwarding {
		value = stateForwarding
	}
	for k, f := range portFlags {
		if f == flag {
			kind = k
		}
	}
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_KIND, nl.NonZeroTerminated("bridge"))
	info.AddRtAttr(nl.IFLA_INFO_SLAVE_DATA, nil).AddRtAttr(int(kind), []byte{value})
	return h.change(link, info)
}

// setOption sets an option of a bridge.
func (h *Host) setOption(link netlink.Link, option hoststate.Option, value uint32) error {
	info := nl.NewRtAttr(unix.IFLA_LINKINFO, nil)
	info.AddRtAttr(nl.IFLA_INFO_KIND, nl.NonZeroTerminated("bridge"))
	data := info.AddRtAttr(nl.IFLA_INFO_DATA, nil)
	if option == hoststate.NoLinkLocalLearn {
		data.AddRtAttr(multiOptions, binary.NativeEndian.AppendUint32(nl.Uint32Attr(value), noLinkLocalLearn))
	}
	for kind, o := range bridgeOptions {
		if o.option != option {
			continue
		}
		switch o.length {
		case 1:
			data.AddRtAttr(int(kind), []byte{byte(value)})
		case 2:
			data.AddRtAttr(int(kind), binary.NativeEndian.AppendUint16(nil, uint16(value)))
		default:
			data.AddRtAttr(int(kind), nl.Uint32Attr(value))
		}
	}
	return h.change(link, info)
}

// change changes a link.
func (h *Host) change(link netlink.Link, part nl.NetlinkRequestData) error {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(link.Attrs().Index)
	_, err := h.request(unix.RTM_NEWLINK, unix.NLM_F_ACK, 0, msg, part)
	return err
}

// addAddress gives a link an address. IPv6 does not look for duplicates: the allocator ensures that there are none.
func (h *Host) addAddress(link netlink.Link, p netip.Prefix) error {
	addr := &netlink.Addr{IPNet: ipNet(p)}
	if p.Addr().Is6() {
		addr.Flags = unix.IFA_F_NODAD
	}
	return h.handle.AddrReplace(link, addr)
}

// addRoute adds the route to the subnet of an address of a link, as the kernel adds it with the address.
func (h *Host) addRoute(link netlink.Link, p netip.Prefix) error {
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: ipNet(p.Masked()), Protocol: unix.RTPROT_KERNEL, Table: unix.RT_TABLE_MAIN,
	}
	if p.Addr().Is4() {
		route.Scope, route.Src = netlink.SCOPE_LINK, p.Addr().AsSlice()
	} else {
		route.Priority = 256 // IP6_RT_PRIO_ADDRCONF
	}
	return h.handle.RouteReplace(route)
}

// addLocal adds the route that makes the host accept packets to an address of a link, as the kernel adds it with the address.
func (h *Host) addLocal(link netlink.Link, p netip.Prefix) error {
	route := &netlink.Route{
		LinkIndex: link.Attrs().Index, Dst: ipNet(p), Protocol: unix.RTPROT_KERNEL, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL,
	}
	if p.Addr().Is4() {
		route.Scope, route.Src = netlink.SCOPE_HOST, p.Addr().AsSlice()
	}
	return h.handle.RouteReplace(route)
}

func ipNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}
