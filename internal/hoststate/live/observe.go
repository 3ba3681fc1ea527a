package live

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/hoststate"
)

// errShort means that a message of the kernel cannot be parsed.
var errShort = errors.New("a message of the kernel is too short")

// portFlags are the flags of ports and their numbers (IFLA_BRPORT_ in linux/if_link.h).
var portFlags = map[uint16]hoststate.Flag{
	nl.IFLA_BRPORT_MODE: hoststate.Hairpin, nl.IFLA_BRPORT_PROTECT: hoststate.RootBlock, nl.IFLA_BRPORT_LEARNING: hoststate.Learning,
	nl.IFLA_BRPORT_UNICAST_FLOOD: hoststate.Flood, nl.IFLA_BRPORT_MCAST_FLOOD: hoststate.McastFlood,
	nl.IFLA_BRPORT_BCAST_FLOOD: hoststate.BcastFlood, nl.IFLA_BRPORT_NEIGH_SUPPRESS: hoststate.NeighSuppress,
	nl.IFLA_BRPORT_ISOLATED: hoststate.Isolated, nl.IFLA_BRPORT_LOCKED: hoststate.Locked,
}

// stateForwarding is the state of a port that carries frames (BR_STATE_FORWARDING in linux/if_bridge.h).
const stateForwarding = 3

// bridgeOptions are the options of bridges with their numbers (IFLA_BR_ in linux/if_link.h) and lengths in bytes.
var bridgeOptions = map[uint16]struct {
	option hoststate.Option
	length int
}{
	nl.IFLA_BR_STP_STATE: {hoststate.STP, 4}, nl.IFLA_BR_VLAN_FILTERING: {hoststate.VLANFiltering, 1},
	nl.IFLA_BR_MCAST_SNOOPING: {hoststate.Snooping, 1}, nl.IFLA_BR_GROUP_FWD_MASK: {hoststate.GroupForward, 2},
	nl.IFLA_BR_AGEING_TIME: {hoststate.AgingTime, 4}, //nolint:misspell // the kernel's name
}

// multiOptions is the attribute of options with one bit each (IFLA_BR_MULTI_BOOLOPT in linux/if_link.h): the values, and a mask of those
// that the kernel knows, or that are set.
const multiOptions = 46

// noLinkLocalLearn is the bit of that option (BR_BOOLOPT_NO_LL_LEARN in linux/if_bridge.h).
const noLinkLocalLearn = 1 << 0

// links returns all links by name.
func (h *Host) links() (map[string]hoststate.Link, error) {
	answers, err := h.request(unix.RTM_GETLINK, unix.NLM_F_DUMP, unix.RTM_NEWLINK, nl.NewIfInfomsg(unix.AF_UNSPEC))
	if err != nil {
		return nil, err
	}
	links := make(map[string]hoststate.Link, len(answers))
	names := make(map[int]string, len(answers))
	masters := make(map[string]int)
	for _, answer := range answers {
		l, master, err := parseLink(answer)
		if err != nil {
			return nil, err
		}
		links[l.Name], names[l.Index] = l, l.Name
		if master != 0 {
			masters[l.Name] = master
		}
	}
	for name, master := range masters {
		l := links[name]
		l.Master = names[master]
		links[name] = l
	}
	return links, nil
}

// Forwards reports whether the link with an index is a port of a bridge that carries frames, in the calling thread's namespace.
func Forwards(index int) (bool, error) {
	msg := nl.NewIfInfomsg(unix.AF_UNSPEC)
	msg.Index = int32(index) //nolint:gosec // an index fits
	req := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	req.AddData(msg)
	answers, err := req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWLINK)
	if err != nil {
		return false, fmt.Errorf("live: read link %d: %w", index, err)
	}
	for _, answer := range answers {
		l, _, err := parseLink(answer)
		if err != nil {
			return false, fmt.Errorf("live: read link %d: %w", index, err)
		}
		if l.Index == index {
			return l.Port[hoststate.Forwarding], nil
		}
	}
	return false, nil
}

// parseLink returns the link of an RTM_NEWLINK message, and the index of its master.
func parseLink(m []byte) (l hoststate.Link, master int, err error) {
	if len(m) < unix.SizeofIfInfomsg {
		return l, 0, errShort
	}
	msg := nl.DeserializeIfInfomsg(m)
	l.Index = int(msg.Index)
	l.Up, l.Running, l.NoARP = msg.Flags&unix.IFF_UP != 0, msg.Flags&unix.IFF_RUNNING != 0, msg.Flags&unix.IFF_NOARP != 0
	attrs, err := nl.ParseRouteAttr(m[msg.Len():])
	if err != nil {
		return l, 0, err
	}
	for _, a := range attrs {
		switch a.Attr.Type {
		case unix.IFLA_IFNAME:
			l.Name = nl.BytesToString(a.Value)
		case unix.IFLA_MTU:
			l.MTU = int(number(a.Value))
		case unix.IFLA_IFALIAS:
			l.Alias = nl.BytesToString(a.Value)
		case unix.IFLA_MASTER:
			master = int(number(a.Value))
		case unix.IFLA_ADDRESS:
			if len(a.Value) == len(l.MAC) {
				l.MAC = ether.Addr(a.Value)
			}
		case unix.IFLA_LINKINFO:
			if err := parseInfo(a.Value, &l); err != nil {
				return l, 0, err
			}
		}
	}
	return l, master, nil
}

// parseInfo sets what IFLA_LINKINFO says about a link: its kind, the options of a bridge, the flags of a bridge's port.
func parseInfo(b []byte, l *hoststate.Link) error {
	parts, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	var data, port []byte
	slave := ""
	for _, p := range parts {
		switch p.Attr.Type {
		case nl.IFLA_INFO_KIND:
			l.Kind = nl.BytesToString(p.Value)
		case nl.IFLA_INFO_DATA:
			data = p.Value
		case nl.IFLA_INFO_SLAVE_KIND:
			slave = nl.BytesToString(p.Value)
		case nl.IFLA_INFO_SLAVE_DATA:
			port = p.Value
		}
	}
	if l.Kind == "bridge" {
		l.Options = make(map[hoststate.Option]uint32)
		if err := each(data, func(kind uint16, value []byte) {
			if o, known := bridgeOptions[kind]; known {
				l.Options[o.option] = number(value)
			}
			if kind == multiOptions && len(value) == 8 && binary.NativeEndian.Uint32(value[4:])&noLinkLocalLearn != 0 {
				l.Options[hoststate.NoLinkLocalLearn] = binary.NativeEndian.Uint32(value) & noLinkLocalLearn
			}
		}); err != nil {
			return err
		}
	}
	if slave != "bridge" {
		return nil
	}
	l.Port = make(map[hoststate.Flag]bool)
	return each(port, func(kind uint16, value []byte) {
		if kind == nl.IFLA_BRPORT_STATE {
			l.Port[hoststate.Forwarding] = number(value) == stateForwarding
		} else if f, known := portFlags[kind]; known {
			l.Port[f] = number(value) != 0
		}
	})
}

// each calls f for each attribute.
func each(b []byte, f func(kind uint16, value []byte)) error {
	attrs, err := nl.ParseRouteAttr(b)
	if err != nil {
		return err
	}
	for _, a := range attrs {
		f(a.Attr.Type, a.Value)
	}
	return nil
}

// number returns an integer of 1, 2 or 4 bytes.
func number(b []byte) uint32 {
	switch len(b) {
	case 1:
		return uint32(b[0])
	case 2:
		return uint32(binary.NativeEndian.Uint16(b))
	case 4:
		return binary.NativeEndian.Uint32(b)
	}
	return 0
}

// addresses returns the addresses of one family of a link.
func (h *Host) addresses(family, index int) (list []netip.Prefix, err error) {
	filter := nl.NewIfAddrmsg(family)
	filter.Index = uint32(index)
	answers, err := h.request(unix.RTM_GETADDR, unix.NLM_F_DUMP, unix.RTM_NEWADDR, filter)
	if noFamily(family, err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, m := range answers {
		if len(m) < unix.SizeofIfAddrmsg {
			return nil, errShort
		}
		msg := nl.DeserializeIfAddrmsg(m)
		if int(msg.Index) != index || int(msg.Family) != family {
			continue
		}
		var addr netip.Addr
		err := each(m[msg.Len():], func(kind uint16, value []byte) {
			// On a point-to-point link IFA_ADDRESS is that of the other end, and IFA_LOCAL the interface's own.
			if kind == unix.IFA_LOCAL || kind == unix.IFA_ADDRESS && !addr.IsValid() {
				addr, _ = netip.AddrFromSlice(value)
			}
		})
		if err != nil {
			return nil, err
		}
		if p := netip.PrefixFrom(addr, int(msg.Prefixlen)); p.IsValid() {
			list = append(list, p)
		}
	}
	return list, nil
}

// routes returns the destinations of the routes of one family and type by a link, without a gateway, in a table.
func (h *Host) routes(family, index int, table, kind uint8) (list []netip.Prefix, err error) {
	filter := &nl.RtMsg{RtMsg: unix.RtMsg{Family: uint8(family), Table: table}}
	link := nl.NewRtAttr(unix.RTA_OIF, nl.Uint32Attr(uint32(index)))
	answers, err := h.request(unix.RTM_GETROUTE, unix.NLM_F_DUMP, unix.RTM_NEWROUTE, filter, link)
	if noFamily(family, err) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	for _, m := range answers {
		if len(m) < unix.SizeofRtMsg {
			return nil, errShort
		}
		msg := nl.DeserializeRtMsg(m)
		if int(msg.Family) != family || msg.Table != table || msg.Type != kind {
			continue
		}
		var dst netip.Addr
		here, gateway := false, false
		err := each(m[msg.Len():], func(kind uint16, value []byte) {
			switch kind {
			case unix.RTA_DST:
				dst, _ = netip.AddrFromSlice(value)
			case unix.RTA_OIF:
				here = int(number(value)) == index
			case unix.RTA_GATEWAY, unix.RTA_VIA:
				gateway = true
			}
		})
		if err != nil {
			return nil, err
		}
		if p := netip.PrefixFrom(dst, int(msg.Dst_len)); here && !gateway && p.IsValid() {
			list = append(list, p)
		}
	}
	return list, nil
}

// noFamily reports whether err means that the kernel has no IPv6, so that there is nothing to list.
func noFamily(family int, err error) bool {
	return family == netlink.FAMILY_V6 && (errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.EOPNOTSUPP))
}
