package podprobe

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/hoststate/live"
	"weft/internal/netdump"
)

// plug makes the two TAPs ports of the bridge, as it may have been made again since the last probe.
func (p *Prober) plug() error {
	bridge, err := netlink.LinkByName(p.cfg.Bridge)
	if err != nil {
		return fmt.Errorf("podprobe: bridge %s: %w", p.cfg.Bridge, err)
	}
	if bridge.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("podprobe: bridge %s is down", p.cfg.Bridge)
	}
	sender, err := plugPort(p.sender.Name(), bridge.Attrs().Index, true)
	if err != nil {
		return err
	}
	receiver, err := plugPort(p.receiver.Name(), bridge.Attrs().Index, false)
	if err != nil {
		return err
	}
	err = netlink.NeighSet(&netlink.Neigh{
		LinkIndex: receiver, Family: unix.AF_BRIDGE, State: netlink.NUD_NOARP, Flags: netlink.NTF_MASTER, HardwareAddr: receiverMAC[:],
	})
	if err != nil {
		return fmt.Errorf("podprobe: forwarding entry on %s: %w", p.cfg.Bridge, err)
	}
	for _, port := range []int{sender, receiver} {
		forwards, err := live.Forwards(port)
		if err != nil {
			return fmt.Errorf("podprobe: %w", err)
		}
		if !forwards {
			return ErrWaits
		}
	}
	return nil
}

// plugPort makes a TAP a port of the bridge with the given index, and returns the TAP's index.
func plugPort(name string, bridge int, isolated bool) (int, error) {
	port, err := netlink.LinkByName(name)
	if err != nil {
		return 0, fmt.Errorf("podprobe: %s: %w", name, err)
	}
	a := port.Attrs()
	if a.MasterIndex != bridge {
		if err := netlink.LinkSetHardwareAddr(port, interfaceMAC[:]); err != nil {
			return 0, fmt.Errorf("podprobe: set the address of %s: %w", name, err)
		}
		if err := netlink.LinkSetMasterByIndex(port, bridge); err != nil {
			return 0, fmt.Errorf("podprobe: add %s to the bridge: %w", name, err)
		}
		if err := setPort(a.Index, isolated); err != nil {
			return 0, err
		}
	}
	if a.Flags&net.FlagUp == 0 {
		if err := netlink.LinkSetUp(port); err != nil {
			return 0, fmt.Errorf("podprobe: bring up %s: %w", name, err)
		}
	}
	return a.Index, nil
}

// setPort turns learning and all flooding off for a port, and isolates it or not.
func setPort(index int, isolated bool) error {
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
		return fmt.Errorf("podprobe: set up port %d of the bridge: %w", index, err)
	}
	return nil
}
