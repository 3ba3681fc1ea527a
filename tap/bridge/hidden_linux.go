package bridge

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/netdump"
)

// HiddenPrefix begins the names of hidden ports: weft's own TAPs for probes, which are neither pods nor ways to other nodes.
const HiddenPrefix = "weftp"

// hiddenMAC is the hardware address of hidden ports. A bridge without an address of its own takes the lowest of its ports, so it is high.
var hiddenMAC = ether.Addr{0xfe, 0x57, 0xff, 0, 0, 3}

// PlugHidden makes a TAP a port of the bridge with the given index and brings it up, if it is not so already, and returns the TAP's index.
// The bridge learns no address from it, and floods no frame to it. An isolated one cannot send to other isolated ports, as are all that
// lead to other nodes.
func PlugHidden(name string, bridge int, isolated bool) (int, error) {
	port, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("bridge: %s: %w", name, err)
	}
	a := port.Attrs()
	if a.MasterIndex != bridge {
		if err := netlink.LinkSetHardwareAddr(port, hiddenMAC[:]); err != nil {
			return 0, fmt.Errorf("bridge: set the address of %s: %w", name, err)
		}
		if err := netlink.LinkSetMasterByIndex(port, bridge); err != nil {
			return 0, fmt.Errorf("bridge: add %s to the bridge: %w", name, err)
		}
		if err := hide(a.Index, isolated); err != nil {
			return 0, err
		}
	}
	if a.Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(port); err != nil {
			return 0, fmt.Errorf("bridge: bring up %s: %w", name, err)
		}
	}
	return a.Index, nil
}

// hide turns learning and all flooding off for a port, and isolates it or not.
func hide(index int, isolated bool) error {
	bit := map[bool]uint8{true: 1}
	msg := nl.NewIfInfomsg(unix.AF_BRIDGE)
	msg.Index = int32(index) //nolint:gosec // an index fits
	port := nl.NewRtAttr(unix.IFLA_PROTINFO|unix.NLA_F_NESTED, nil)
	for attr, value := range map[int]uint8{
		nl.IFLA_BRPORT_LEARNING: 0, nl.IFLA_BRPORT_UNICAST_FLOOD: 0, nl.IFLA_BRPORT_MCAST_FLOOD: 0, nl.IFLA_BRPORT_BCAST_FLOOD: 0,
		nl.IFLA_BRPORT_ISOLATED: bit[isolated],
	} {
		port.AddRtAttr(attr, nl.Uint8Attr(value))
	}
	req := nl.NewNetlinkRequest(unix.RTM_SETLINK, unix.NLM_F_ACK)
	req.AddData(msg)
	req.AddData(port)
	if _, err := netdump.Repeat(func() ([][]byte, error) { return req.Execute(unix.NETLINK_ROUTE, 0) }); err != nil {
		return fmt.Errorf("bridge: set up port %d of the bridge: %w", index, err)
	}
	return nil
}
