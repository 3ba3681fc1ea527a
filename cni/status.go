package cni

import (
	"context"
	"fmt"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// Status says whether an ADD could succeed now: code 50 if not, with the reason.
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
	return nil
}
