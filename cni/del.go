package cni

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// Del removes the container's interface from the overlay and ends its leases. It succeeds if interface, leases or the namespace
// do not exist. If the daemon does not answer, Del removes the link, queues the end of the leases until the daemon runs
// again, and succeeds: runtimes never delete a pod while DEL fails.
func (p *Plugin) Del(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), otherTimeout)
	defer cancel()
	c, err := p.newCall(args)
	if err != nil {
		return err
	}
	// The link is removed first: an address may be leased again only when no interface has it.
	if err := p.Links.Detach(ctx, args.Netns, args.IfName, c.host); err != nil {
		return linkError(err)
	}
	err = c.release(ctx)
	if e, ok := errors.AsType[*types.Error](err); ok && e.Code == types.ErrTryAgainLater && !c.delegated() {
		if err := c.queue().Add(c.holder); err != nil {
			return addDetails(e, "queueing the deletion failed", err)
		}
		return nil
	}
	return err
}
