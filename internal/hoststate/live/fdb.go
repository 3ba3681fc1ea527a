package live

import (
	"errors"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/hoststate"
)

// Deaf reports whether the forwarding database of the bridge called name lacks the bridge's own MAC. It returns false where there is no
// such bridge. It causes no dump, so it may be called often.
func (h *Host) Deaf(name string) bool {
	link, err := h.handle.LinkByName(name)
	if err != nil || link.Type() != "bridge" {
		return false
	}
	l := hoststate.Link{Index: link.Attrs().Index}
	copy(l.MAC[:], link.Attrs().HardwareAddr)
	deaf, err := h.deaf(l)
	return deaf && err == nil
}

// deaf is Deaf for a bridge by its index and MAC. Kernels before 5.0 cannot look up one entry; there it returns false.
func (h *Host) deaf(bridge hoststate.Link) (bool, error) {
	msg := netlink.Ndmsg{Family: unix.AF_BRIDGE}
	_, err := h.request(unix.RTM_GETNEIGH, 0, unix.RTM_NEWNEIGH, &msg,
		nl.NewRtAttr(unix.NDA_LLADDR, bridge.MAC[:]), nl.NewRtAttr(unix.NDA_MASTER, nl.Uint32Attr(uint32(bridge.Index))))
	switch {
	case errors.Is(err, unix.ENOENT):
		return true, nil
	case errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EINVAL), errors.Is(err, unix.ENODEV): // or the bridge was just removed
		return false, nil
	}
	return false, err
}

// addMAC adds the MAC of a bridge to its forwarding database, as the kernel does when the bridge gets the MAC.
func (h *Host) addMAC(bridge netlink.Link, mac ether.Addr) error {
	return h.handle.NeighSet(&netlink.Neigh{
		LinkIndex: bridge.Attrs().Index, Family: unix.AF_BRIDGE, State: netlink.NUD_PERMANENT, Flags: netlink.NTF_SELF, HardwareAddr: mac[:],
	})
}
