package docker

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containernetworking/plugins/pkg/ns"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/ether"
	"weft/internal/hostnet"
	"weft/internal/netdump"
	"weft/internal/podlink"
)

// Kernel makes the interfaces of containers in the network namespace of the calling thread.
type Kernel struct{}

var _ Links = Kernel{}

// Offer implements Links.
func (Kernel) Offer(ctx context.Context, s podlink.Spec) error { return podlink.New().Offer(ctx, s) }

// Remove implements Links.
func (Kernel) Remove(ctx context.Context, hostName string) error {
	return podlink.New().Detach(ctx, "", "", hostName)
}

// Exists implements Links.
func (Kernel) Exists(name string) bool { return hostnet.LinkExists(name) }

// HasMulticastRoute implements Links.
func (Kernel) HasMulticastRoute(netns string) bool {
	found := false
	err := ns.WithNetNSPath(netns, func(ns.NetNS) error {
		routes, err := netdump.Repeat(func() ([]netlink.Route, error) {
			return netlink.RouteListFiltered(unix.AF_INET, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE)
		})
		for _, r := range routes {
			found = found || r.Dst != nil && r.Dst.String() == allGroups
		}
		return err
	})
	return err == nil && found
}

// announcePause is the time between two looks at an interface that Docker configures.
const announcePause = 20 * time.Millisecond

// errNoInterface means that Docker has not configured an interface in time.
var errNoInterface = errors.New("docker: no interface with the MAC and an address")

// Announce implements Links.
func (Kernel) Announce(ctx context.Context, netns string, mac ether.Addr) error {
	for {
		sent, err := podlink.Announce(netns, mac)
		if sent && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%w: %s", errNoInterface, mac), err)
		case <-time.After(announcePause):
		}
	}
}
