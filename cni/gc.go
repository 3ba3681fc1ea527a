package cni

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/leases/holder"
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
	done := map[holder.Holder]bool{}
	for _, a := range c.conf.ValidAttachments {
		done[holder.ForContainer(c.conf.Name, a.ContainerID, a.IfName)] = true
	}
	var errs []error
	for _, l := range leases {
		h := holder.Parse(l.Owner)
		if h.Kind != holder.Container || h.Network != c.conf.Name || done[h] {
			continue
		}
		done[h] = true
		errs = append(errs, c.collect(ctx, h))
	}
	return first(errs)
}

// collect removes the link of an attachment and ends its leases.
func (c *call) collect(ctx context.Context, h holder.Holder) error {
	link, _ := h.HostLink()
	if err := c.Links.Detach(ctx, "", h.Ifname, link); err != nil {
		return linkError(err)
	}
	return daemonError(c.daemon, ignoreNotFound(c.daemon.Release(ctx, h.String(), "")))
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
