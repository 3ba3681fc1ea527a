package bridge

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/netdump"
)

// State is the kind of link that a name stands for. The zero State is invalid.
type State uint8

// States of a name.
const (
	Absent State = iota + 1 // there is no such link
	Found                   // it is a bridge
	Other                   // it is a link of another kind
)

// Info is the result of Inspect. If State is Absent, all other fields are zero.
type Info struct {
	State State
	// Kind of the link as in "ip -d link": "bridge", "veth", "dummy", "device" for hardware.
	Kind  string
	Index int
	MTU   int // bytes
	MAC   ether.Addr
	// Ours: Ensure made it, in this run of the daemon or an earlier one.
	Ours bool
	// Ports are the names of a bridge's ports, in the order of their indices.
	Ports []string
}

// Inspect returns the state of the link called name. It changes nothing and needs no privilege.
func Inspect(name string) (Info, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return Info{}, fmt.Errorf("bridge: %s: netlink: %w", name, err)
	}
	defer nl.Close()
	return inspect(nl, name)
}

func inspect(nl *netlink.Handle, name string) (Info, error) {
	link, err := nl.LinkByName(name)
	if _, absent := errors.AsType[netlink.LinkNotFoundError](err); absent {
		return Info{State: Absent}, nil
	}
	if err != nil {
		return Info{}, fmt.Errorf("bridge: %s: %w", name, err)
	}
	attrs := link.Attrs()
	info := Info{State: Other, Kind: link.Type(), Index: attrs.Index, MTU: attrs.MTU}
	if link.Type() != "bridge" {
		return info, nil
	}
	info.State = Found
	copy(info.MAC[:], attrs.HardwareAddr)
	info.Ours = attrs.Alias == Alias
	links, err := netdump.Repeat(nl.LinkList)
	if err != nil {
		return Info{}, fmt.Errorf("bridge: ports of %s: %w", name, err)
	}
	for _, port := range links {
		if port.Attrs().MasterIndex == attrs.Index {
			info.Ports = append(info.Ports, port.Attrs().Name)
		}
	}
	return info, nil
}
