package cni

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/api"
)

// checkSpace returns an error if no reachable node has a free address in one of the ranges.
func (c *call) checkSpace(ctx context.Context) error {
	ipam, err := c.daemon.IPAM(ctx)
	if err != nil {
		return failure(types.ErrPluginNotAvailable, daemonError(c.daemon, err))
	}
	for _, r := range ipam.Ranges {
		left := slices.ContainsFunc(r.Owners, func(o api.IPAMOwner) bool { return o.Reachable && o.Free > 0 })
		if len(r.Owners) > 0 && !left {
			return types.NewError(types.ErrPluginNotAvailable, fmt.Sprintf("no address is free in %s on any reachable node", r.CIDR),
				"hint: `weft ipam` shows the addresses of each node; reclaim those of dead nodes with `weft reclaim`, or delete pods")
		}
	}
	return nil
}

// Status returns nil if an ADD can succeed now, else an error with code 50 and the reason.
func (p *Plugin) Status(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), otherTimeout)
	defer cancel()
	c, err := p.newCall(args)
	if err != nil {
		return err
	}
	s, err := c.daemon.Status(ctx)
	if err != nil {
		return failure(types.ErrPluginNotAvailable, daemonError(c.daemon, err))
	}
	if !s.Ready {
		why := fmt.Sprintf("the weft daemon at %s is not ready: address space %s", c.daemon.Socket(), s.IPAM)
		return types.NewError(types.ErrPluginNotAvailable, why, strings.Join(s.Warnings, "; "))
	}
	if c.conf.Policy != "" {
		if err := policyError(c.conf.Policy, p.Dial(c.conf.Policy).Admits(ctx)); err != nil {
			return failure(types.ErrPluginNotAvailable, err)
		}
	}
	if c.delegated() {
		return delegateError(c.conf, invoke.DelegateStatus(ctx, c.conf.IPAM.Type, args.StdinData, p.Exec))
	}
	return c.checkSpace(ctx)
}
