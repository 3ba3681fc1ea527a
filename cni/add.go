package cni

import (
	"context"
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"weft/internal/podlink"
)

// Add joins the container's namespace to the overlay and prints the result. A failed Add leaves neither a link nor a lease,
// unless undoing fails, too.
//
// The codes of its errors: 4 the interface exists or has a bad name, 6 and 7 the configuration is wrong, 8 the namespace is
// wrong, 11 the daemon does not answer or is not ready, CodeNoAddress, CodeRefused, and the codes of a delegated plugin.
func (p *Plugin) Add(args *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(context.Background(), addTimeout)
	defer cancel()
	c, err := p.newCall(args)
	if err != nil {
		return err
	}
	prev, err := c.prevResult()
	if err != nil {
		return err
	}
	unlock, err := c.lock(ctx, shared)
	if err != nil {
		return err
	}
	defer unlock()
	// This precedes the lease: undoing a second ADD must not end the lease of the first one.
	if exists, err := c.interfaceExists(); err != nil {
		return err
	} else if exists {
		if err := c.clear(ctx); err != nil {
			return err
		}
	}
	if err := c.queue().Forget(c.holder); err != nil { // a runtime may reuse the names of a deleted container
		return failure(types.ErrIOFailure, err)
	}
	plan, err := c.newPlan(ctx)
	if err != nil {
		return c.undo(ctx, err)
	}
	admitted, err := c.admit(ctx, plan.addresses(), plan.spec.PodMAC())
	if err != nil {
		return c.undo(ctx, err)
	}
	if err := c.guard(ctx, plan, admitted); err != nil {
		return c.undo(ctx, err)
	}
	made, err := p.Links.Attach(ctx, plan.spec)
	if errors.Is(err, podlink.ErrExists) { // the host end, of a pair in another namespace
		if err := c.clear(ctx); err != nil {
			return err // the existing attachment keeps its lease
		}
		made, err = p.Links.Attach(ctx, plan.spec)
	}
	if errors.Is(err, podlink.ErrExists) {
		return linkError(err) // another ADD was faster
	} else if err != nil {
		return c.undo(ctx, linkError(err))
	}
	c.harden()
	c.addName(ctx, plan)
	if err := c.print(plan.result(prev, made)); err != nil {
		return c.undo(ctx, err)
	}
	if err := c.Links.Confirm(c.host); err != nil { // the runtime has the result
		c.log().Warn("cannot record that the pod was added", "holder", c.holder, "err", err)
	}
	return nil
}

// print writes the result in the version of the network configuration.
func (c *call) print(res *types100.Result) error {
	out, err := res.GetAsVersion(c.conf.CNIVersion)
	if err != nil {
		return failure(types.ErrInternal, fmt.Errorf("result for version %s: %w", c.conf.CNIVersion, err))
	}
	if err := out.PrintTo(c.Out); err != nil {
		return failure(types.ErrIOFailure, fmt.Errorf("write the result: %w", err))
	}
	return nil
}

// undo reverts all steps of ADD so far and returns cause. If that fails as well, details of the error report it; the runtime
// calls DEL later.
func (c *call) undo(ctx context.Context, cause error) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoTimeout)
	defer cancel()
	if err := c.Links.Detach(ctx, c.args.Netns, c.args.IfName, c.host); err != nil {
		return addDetails(cause, "the link was not removed", err)
	}
	if !c.leased {
		return cause
	}
	if err := c.release(ctx); err != nil {
		return addDetails(cause, "the address may still be leased", err)
	}
	return cause
}

// addDetails adds a second error to the details of cause, which must wrap a *types.Error.
func addDetails(cause error, what string, err error) error {
	e, ok := errors.AsType[*types.Error](cause)
	if !ok {
		return cause
	}
	details := fmt.Sprintf("%s: %v", what, err)
	if e.Details != "" {
		details = e.Details + "; " + details
	}
	return types.NewError(e.Code, e.Msg, details)
}
