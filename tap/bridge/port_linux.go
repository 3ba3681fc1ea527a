package bridge

import (
	"fmt"

	"github.com/vishvananda/netlink"

	"weft/internal/netdump"
)

// AddPort makes the link called name an isolated port of the bridge and brings it up. The bridge forwards no frames
// between isolated ports: so the TAP and a VXLAN device, which both lead into the overlay, make no loop. Other ports
// are not changed. An existing port is isolated, too. The error wraps ErrPortTaken or ErrNoIsolation for these reasons;
// then the link is no port.
func (b *Bridge) AddPort(name string) error {
	port, err := b.nl.LinkByName(name)
	if err != nil {
		return fmt.Errorf("bridge: port %s: %w", name, err)
	}
	master := port.Attrs().MasterIndex
	if master != 0 && master != b.index {
		return fmt.Errorf("bridge: %s is %w (%s): remove it from there (ip link set %s nomaster)",
			name, ErrPortTaken, b.linkName(master), name)
	}
	if err := b.nl.LinkSetMasterByIndex(port, b.index); err != nil {
		return fmt.Errorf("bridge: add %s to %s: %w", name, b.name, err)
	}
	if err := b.isolate(port); err != nil {
		if master == 0 {
			_ = b.nl.LinkSetNoMaster(port)
		}
		return err
	}
	if err := b.nl.LinkSetUp(port); err != nil {
		return fmt.Errorf("bridge: bring port %s up: %w", name, err)
	}
	return nil
}

// isolate isolates port and checks the result, as old kernels ignore unknown attributes.
func (b *Bridge) isolate(port netlink.Link) error {
	name := port.Attrs().Name
	if err := b.nl.LinkSetIsolated(port, true); err != nil {
		return fmt.Errorf("bridge: isolate port %s: %w: %w", name, ErrNoIsolation, err)
	}
	state, err := netdump.Repeat(func() (netlink.Protinfo, error) { return b.nl.LinkGetProtinfo(port) })
	if err != nil {
		return fmt.Errorf("bridge: state of port %s: %w", name, err)
	}
	if !state.Isolated {
		return fmt.Errorf("bridge: isolate port %s: %w", name, ErrNoIsolation)
	}
	return nil
}

// linkName returns the name of the link with index, for an error.
func (b *Bridge) linkName(index int) string {
	link, err := b.nl.LinkByIndex(index)
	if err != nil {
		return fmt.Sprintf("link %d", index)
	}
	return link.Attrs().Name
}
