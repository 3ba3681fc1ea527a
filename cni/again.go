package cni

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/podlink"
)

// clear makes place for the pair of this ADD, or explains why it cannot. What an earlier ADD of the same interface left when it
// was killed is removed: the runtime has never seen its result. The lease stays, so the container keeps its address.
func (c *call) clear(ctx context.Context) error {
	inNetns, err := c.interfaceExists()
	if err != nil {
		return err
	}
	pairs, err := c.Links.Pairs()
	if err != nil {
		return linkError(err)
	}
	i := slices.IndexFunc(pairs, func(p podlink.Pair) bool { return p.HostName == c.host })
	if i < 0 {
		if inNetns {
			return c.taken("An interface that weft did not add has this name: let the runtime use another one, or remove it "+
				"(`nsenter --net=%s ip link del %s`).", c.args.Netns, c.args.IfName)
		}
		return nil
	}
	if !pairs[i].Origin.Pending {
		return c.taken("The container has this interface already: the runtime must call DEL first. By hand: `ip link del %s` on the "+
			"host removes it.", c.host)
	}
	if err := c.Links.Detach(ctx, "", c.args.IfName, c.host); err != nil {
		return linkError(err)
	}
	c.log().Warn("removed what an earlier ADD of the same interface left", "holder", c.holder, "link", c.host)
	if inNetns, err = c.interfaceExists(); err != nil {
		return err
	}
	if inNetns {
		return c.taken("An interface that weft did not add has this name, too: let the runtime use another one, or remove it "+
			"(`nsenter --net=%s ip link del %s`).", c.args.Netns, c.args.IfName)
	}
	return nil
}

// interfaceExists reports whether the namespace has an interface of the requested name.
func (c *call) interfaceExists() (bool, error) {
	_, _, err := c.Links.Addresses(c.args.Netns, c.args.IfName)
	if errors.Is(err, podlink.ErrNoLink) {
		return false, nil
	}
	return err == nil, linkError(err)
}

// taken returns the error that the interface exists, with a hint.
func (c *call) taken(format string, args ...any) error {
	err := fmt.Errorf("CNI_IFNAME: %w: %q", podlink.ErrExists, c.args.IfName)
	return types.NewError(types.ErrInvalidEnvironmentVariables, err.Error(), "hint: "+fmt.Sprintf(format, args...))
}
