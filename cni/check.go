package cni

import (
	"context"
	"fmt"
	"net/netip"
	"slices"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"weft/internal/podlink"
)

// Check compares the container's interface, and the leases of its addresses, with the result of ADD. That result contains the
// changes of later plugins in the chain.
func (p *Plugin) Check(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), otherTimeout)
	defer cancel()
	c, err := p.newCall(args)
	if err != nil {
		return err
	}
	prev, err := c.prevResult()
	if err != nil {
		return err
	}
	if prev == nil {
		return types.NewError(types.ErrInvalidNetworkConfig, "no prevResult", "")
	}
	spec, err := c.expected(prev)
	if err != nil {
		return err
	}
	if err := p.Links.Check(spec); err != nil {
		return linkError(err)
	}
	if c.delegated() {
		return delegateError(c.conf, invoke.DelegateCheck(ctx, c.conf.IPAM.Type, args.StdinData, p.Exec))
	}
	return c.checkLeases(ctx, spec.Addresses)
}

// expected converts a result to the specification of the link that it describes.
func (c *call) expected(prev *types100.Result) (podlink.Spec, error) {
	inside := slices.IndexFunc(prev.Interfaces, func(i *types100.Interface) bool {
		return i.Name == c.args.IfName && i.Sandbox != ""
	})
	host := slices.IndexFunc(prev.Interfaces, func(i *types100.Interface) bool { return i.Name == c.host && i.Sandbox == "" })
	if inside < 0 || host < 1 {
		return podlink.Spec{}, failure(types.ErrInvalidNetworkConfig, fmt.Errorf("prevResult: no interfaces %s and %s", c.args.IfName, c.host))
	}
	s := podlink.Spec{
		Netns: c.args.Netns, Ifname: c.args.IfName, HostName: c.host,
		Bridge: prev.Interfaces[host-1].Name, // ADD appends bridge, host end and pod end in this order
		MAC:    macOf(prev.Interfaces[inside].Mac), DefaultRoute: true,
	}
	for _, ip := range prev.IPs {
		if ip.Interface != nil && *ip.Interface == inside {
			s.Addresses = append(s.Addresses, podlink.Address{Prefix: prefixOf(ip.Address)})
		}
	}
	for _, r := range prev.Routes {
		dst, gw := prefixOf(r.Dst), addrOf(r.GW)
		i := slices.IndexFunc(s.Addresses, func(a podlink.Address) bool { return a.Prefix.Addr().Is4() == dst.Addr().Is4() })
		if dst.Bits() == 0 && gw.IsValid() && i >= 0 {
			s.Addresses[i].Gateway = gw
		} else {
			s.Routes = append(s.Routes, podlink.Route{Dst: dst, Gateway: gw})
		}
	}
	return s, nil
}

// checkLeases returns an error if the daemon does not lease one of the addresses to this container.
func (c *call) checkLeases(ctx context.Context, addresses []podlink.Address) error {
	leases, err := c.daemon.Leases(ctx, c.holder.String())
	if err := ignoreNotFound(err); err != nil {
		return daemonError(c.daemon, err)
	}
	leased := map[netip.Addr]bool{}
	for _, l := range leases {
		leased[l.IP.Addr()] = true
	}
	for _, a := range addresses {
		if !leased[a.Prefix.Addr()] {
			return failure(types.ErrInternal, fmt.Errorf("%s is not leased to %s", a.Prefix.Addr(), c.holder))
		}
	}
	return nil
}
