package cni

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/podlink"
)

// GC removes the links and ends the leases of this network's attachments that the runtime does not list as valid. It ignores
// leases of other networks, and those that the plugin did not make. It continues after errors and returns the first.
func (p *Plugin) GC(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), otherTimeout)
	defer cancel()
	c, err := p.newCall(args)
	if err != nil {
		return err
	}
	if c.delegated() {
		return delegateError(c.conf, invoke.DelegateGC(ctx, c.conf.IPAM.Type, args.StdinData, p.Exec))
	}
	leases, err := c.daemon.Leases(ctx, "")
	if err != nil {
		return daemonError(c.daemon, err)
	}
	done := map[string]bool{}
	for _, a := range c.conf.ValidAttachments {
		done[HolderOf(c.conf.Name, a.ContainerID, a.IfName)] = true
	}
	var errs []error
	for _, l := range leases {
		network, _, ifname, ok := ParseHolder(l.Owner)
		if !ok || network != c.conf.Name || done[l.Owner] {
			continue
		}
		done[l.Owner] = true
		errs = append(errs, c.collect(ctx, l.Owner, ifname))
	}
	return first(errs)
}

// collect removes the link of an attachment and ends its leases.
func (c *call) collect(ctx context.Context, owner, ifname string) error {
	if err := c.Links.Detach(ctx, "", ifname, podlink.HostLinkName(owner, ifname)); err != nil {
		return linkError(err)
	}
	return daemonError(c.daemon, ignoreNotFound(c.daemon.Release(ctx, owner, "")))
}

// first returns the first error, with the others as details: an error of CNI has one code.
func first(errs []error) error {
	all := errors.Join(errs...)
	e, ok := errors.AsType[*types.Error](all)
	if !ok {
		return all
	}
	if all.Error() == e.Error() {
		return e
	}
	return types.NewError(e.Code, e.Msg, all.Error())
}
