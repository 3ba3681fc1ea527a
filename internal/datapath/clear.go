package datapath

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"weft/internal/dockerfilter"
	"weft/internal/hairpin"
	"weft/internal/netdump"
	"weft/internal/podlink"
	"weft/router/carrier/vxlan"
	"weft/tap/bridge"
)

// Clear removes pods, rules and bridge from the host, for a node that leaves: its addresses belong to other nodes from now on.
// Nothing is repaired afterwards. The addresses of the bridge are removed before.
func (d *Datapath) Clear(ctx context.Context) error {
	d.hostMu.Lock()
	defer d.hostMu.Unlock()
	d.cleared = true
	errs := []error{d.guards.remove(ctx), d.ports.remove(ctx)}
	if !d.settings.NoMasquerade {
		errs = append(errs, removeRules(ctx))
	}
	errs = append(errs, hairpin.Remove(ctx), d.inward.Remove(ctx), dockerfilter.Remove(d.settings.Bridge), d.clearBridge())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("datapath: taking the host off the overlay: %w", err)
	}
	return nil
}

// clearBridge deletes the pods' pairs on the bridge, and the bridge itself if weft made it and it has no other ports.
func (d *Datapath) clearBridge() error {
	info, err := bridge.Inspect(d.settings.Bridge)
	if err != nil || info.State != bridge.Found {
		return err
	}
	err = removePods(info.Index)
	kernelPorts := []string{d.settings.KernelDevice(), d.settings.TunneledDevice()}
	others := slices.DeleteFunc(info.Ports, func(port string) bool {
		return port == d.settings.Tap || slices.Contains(kernelPorts, port) || strings.HasPrefix(port, podlink.HostPrefix) ||
			vxlan.IsPair(d.settings.KernelDevice(), port) || strings.HasPrefix(port, bridge.HiddenPrefix)
	})
	if info.Ours && len(others) == 0 {
		err = errors.Join(err, bridge.Remove(d.settings.Bridge))
	}
	return err
}

// removePods deletes the pairs of the pods on the bridge with the given index.
func removePods(bridgeIndex int) error {
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		return fmt.Errorf("datapath: listing links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if strings.HasPrefix(l.Attrs().Name, podlink.HostPrefix) && l.Attrs().MasterIndex == bridgeIndex {
			errs = append(errs, netlink.LinkDel(l))
		}
	}
	return errors.Join(errs...)
}
