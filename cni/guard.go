package cni

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/api"
	"weft/internal/guard"
)

// guard makes the daemon bind the container's port to its addresses, or leave it open. It is called before the interface exists, so that
// the interface never sends unchecked. A configuration that requests a guard fails closed.
func (c *call) guard(ctx context.Context, p plan, admitted api.Admitted) error {
	allow, err := c.conf.allowed()
	if err != nil {
		return err
	}
	requested, err := api.ParseGuardMode(c.conf.Guard)
	if err != nil {
		return failure(types.ErrInvalidNetworkConfig, fmt.Errorf("guard: %w", err))
	}
	requested = cmp.Or(admitted.Guard, requested)
	err = c.daemon.Guard(ctx, api.GuardRequest{
		Owner: c.holder.String(), MAC: p.spec.PodMAC(), IPs: p.addresses(), Guard: requested, Allow: append(allow, admitted.Allow...),
	})
	if errors.Is(err, api.ErrOldDaemon) {
		if requested != api.GuardPods {
			return nil // it binds no port
		}
		return types.NewError(types.ErrTryAgainLater, err.Error(), "hint: upgrade the daemon to the version of the plugin")
	}
	return daemonError(c.daemon, err)
}

// unguard ends the guard after the interface is gone. If that fails, the daemon ends it by itself later: a container with addresses of
// another plugin can be deleted without the daemon.
func (c *call) unguard(ctx context.Context) { _ = c.daemon.Unguard(ctx, c.holder.String()) }

// harden keeps the host off a new port. The plugin runs on the host, where the settings can be changed; the daemon's rules have the
// same effect.
func (c *call) harden() { _ = guard.HardenPort(c.host) }

// allowed returns the further addresses of the configuration.
func (c *config) allowed() (allow []netip.Prefix, err error) {
	for _, text := range c.Allow {
		p, err := api.ParseAllowed(text)
		if err != nil {
			return nil, failure(types.ErrInvalidNetworkConfig, fmt.Errorf("allow: %w", err))
		}
		allow = append(allow, p)
	}
	return allow, nil
}
