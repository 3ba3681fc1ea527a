package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/api"
	"weft/internal/podlink"
)

// The plugin's own error codes, beside those of the specification.
const (
	// CodeNoAddress says that no address is left, here or at any node that could be asked.
	CodeNoAddress uint = 100
	// CodeRefused says that the daemon does not do what is asked for in the state that it is in: an address that
	// another owner has, for instance.
	CodeRefused uint = 101
)

// failure returns an error as the runtime gets it.
func failure(code uint, err error) error { return types.NewError(code, err.Error(), "") }

// daemonError gives an error of the daemon the right code; nil stays nil.
func daemonError(d interface{ Socket() string }, err error) error {
	if err == nil {
		return nil
	}
	var problem *api.Problem
	if errors.As(err, &problem) {
		details := ""
		if problem.Hint != "" {
			details = "hint: " + problem.Hint
		}
		return types.NewError(codeOf(problem.Kind), problem.Error(), details)
	}
	var network net.Error // the client's errors in transit are one, a deadline too
	switch {
	case errors.Is(err, api.ErrNoDaemon):
		return types.NewError(types.ErrTryAgainLater, err.Error(), "hint: try again when `weft up` runs on this host")
	case errors.As(err, &network), errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF):
		return failure(types.ErrTryAgainLater, fmt.Errorf("the weft daemon at %s does not answer: %w", d.Socket(), err))
	}
	return failure(types.ErrInternal, err)
}

func codeOf(k api.Kind) uint {
	switch k {
	case api.KindExhausted:
		return CodeNoAddress
	case api.KindRefused:
		return CodeRefused
	case api.KindTimeout, api.KindStarting:
		return types.ErrTryAgainLater
	case api.KindInvalid, api.KindNotFound:
		return types.ErrInvalidNetworkConfig
	default:
		return types.ErrInternal
	}
}

// linkError gives an error of the Linker the right code; nil stays nil.
func linkError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, podlink.ErrNetns):
		return failure(types.ErrInvalidNetNS, fmt.Errorf("CNI_NETNS: %w", err))
	case errors.Is(err, podlink.ErrExists), errors.Is(err, podlink.ErrBadName):
		return failure(types.ErrInvalidEnvironmentVariables, fmt.Errorf("CNI_IFNAME: %w", err))
	case errors.Is(err, podlink.ErrBadSpec):
		return failure(types.ErrInvalidNetworkConfig, err)
	case errors.Is(err, podlink.ErrNoBridge), errors.Is(err, context.DeadlineExceeded): // the daemon is about to make it
		return failure(types.ErrTryAgainLater, err)
	}
	return failure(types.ErrInternal, err)
}

// delegateError gives an error of a delegated address manager the right code, its own where it said one; nil stays nil.
func delegateError(c *config, err error) error {
	var own *types.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &own):
		return types.NewError(own.Code, fmt.Sprintf("ipam plugin %s: %s", c.IPAM.Type, own.Msg), own.Details)
	}
	return failure(types.ErrInvalidNetworkConfig, fmt.Errorf("ipam.type %q: %w", c.IPAM.Type, err))
}

// ignoreNotFound makes a daemon's "there is no such owner" a success.
func ignoreNotFound(err error) error {
	var problem *api.Problem
	if errors.As(err, &problem) && problem.Kind == api.KindNotFound {
		return nil
	}
	return err
}
