package podlink

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Offer creates the pair that s describes, with its pod end in the namespace of the calling thread under the name s.Ifname, for a runtime
// that moves it into the namespace of a container and configures it there by itself. s.Netns, routes and gateways are not used. Addresses
// only determine the MAC. The errors are those of Attach.
func (Kernel) Offer(ctx context.Context, s Spec) (err error) {
	if err := s.Validate(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("podlink: %w", err)
	}
	h, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return fmt.Errorf("podlink: netlink: %w", err)
	}
	defer h.Close()
	e := &ends{host: h, pod: h}
	bridge, err := e.bridge(s.Bridge)
	if err != nil {
		return err
	}
	host, pod, err := e.makePair(s)
	if err != nil {
		return err
	}
	if err := e.plug(host, bridge, s); err != nil {
		return errors.Join(err, remove(h, host))
	}
	if err := h.LinkSetIP6AddrGenMode(pod, nl.IN6_ADDR_GEN_MODE_NONE); err != nil && !noIPv6(err) {
		return errors.Join(fmt.Errorf("podlink: turn off IPv6 addresses of %s: %w", s.Ifname, err), remove(h, host))
	}
	return nil
}
