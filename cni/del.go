package cni

import (
	"context"
	"errors"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
)

// Del takes the container's interface out of the overlay and ends its leases. What is gone already, the namespace
// included, is fine. With the daemon away the link is removed all the same, and the lease ends when the daemon is back: runtimes
// that cannot delete hold a pod for ever.
func (p *Plugin) Del(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), otherTimeout)
	defer cancel()
	c, err := p.newCall(args)
	if err != nil {
		return err
	}
	// The link goes first: an address is free only when nobody has it.
	if err := p.Links.Detach(ctx, args.Netns, args.IfName, c.host); err != nil {
		return linkError(err)
	}
	err = c.release(ctx)
	if e, ok := errors.AsType[*types.Error](err); ok && e.Code == types.ErrTryAgainLater && !c.delegated() {
		if err := c.queue().Add(c.holder); err != nil {
			return addDetails(e, "it could not be queued either", err)
		}
		return nil
	}
	return err
}
