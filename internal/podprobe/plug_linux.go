package podprobe

import (
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/hoststate/live"
	"weft/tap/bridge"
)

// plug makes the two TAPs ports of the bridge, as it may have been made again since the last probe.
func (p *Prober) plug() error {
	br, err := netlink.LinkByName(p.cfg.Bridge)
	if err != nil {
		return fmt.Errorf("podprobe: bridge %s: %w", p.cfg.Bridge, err)
	}
	if br.Attrs().Flags&net.FlagUp == 0 {
		return fmt.Errorf("podprobe: bridge %s is down", p.cfg.Bridge)
	}
	sender, err := bridge.PlugHidden(p.sender.Name(), br.Attrs().Index, true)
	if err != nil {
		return err
	}
	receiver, err := bridge.PlugHidden(p.receiver.Name(), br.Attrs().Index, false)
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
