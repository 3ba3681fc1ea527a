package cni

import (
	"context"

	"github.com/containernetworking/cni/pkg/skel"
)

// Del takes the container's interface out of the overlay and ends its leases. What is gone already, the namespace
// included, is fine. With the daemon away the link is removed all the same, and the error is 11, so that the runtime
// comes again for the lease.
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
	return c.release(ctx)
}
