package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"

	"github.com/containernetworking/cni/pkg/types"

	"weft/internal/api"
	"weft/internal/hint"
	"weft/internal/podlink"
)

// Error codes of the plugin. The specification reserves numbers below 100.
const (
	// CodeNoAddress means that no address is free, on this node and on all reachable ones.
	CodeNoAddress uint = 100
	// CodeRefused means that the daemon cannot fulfill the request in its present state: for example, the address is leased to
	// another holder.
	CodeRefused uint = 101
)

// failure returns an error with a code of CNI.
func failure(code uint, err error) error { return types.NewError(code, hint.Plain(err.Error()), "") }

// daemonError converts an error of a client of the daemon to one with a code of CNI; nil stays nil.
func daemonError(d interface{ Socket() string }, err error) error {
	if err == nil {
		return nil
	}
	if problem, ok := errors.AsType[*api.Problem](err); ok {
		details := ""
		if problem.Hint != "" {
			details = "hint: " + problem.Hint
		}
		return types.NewError(codeOf(problem.Kind), problem.Error(), details)
	}
	_, network := errors.AsType[net.Error](err) // transport errors and timeouts of the client
	switch {
	case errors.Is(err, api.ErrNoDaemon):
		return types.NewError(types.ErrTryAgainLater, err.Error(), "hint: try again when `weft up` runs on this host")
	case network, errors.Is(err, context.DeadlineExceeded), errors.Is(err, io.ErrUnexpectedEOF):
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

// linkError converts an error of a podlink.Linker to one with a code of CNI; nil stays nil.
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
	case errors.Is(err, podlink.ErrNoBridge), errors.Is(err, context.DeadlineExceeded): // the daemon creates the bridge soon
		return failure(types.ErrTryAgainLater, err)
	}
	return failure(types.ErrInternal, err)
}

// delegateError converts an error of a delegated address manager. It keeps the code that the manager returned; nil stays nil.
func delegateError(c *config, err error) error {
	if err == nil {
		return nil
	}
	if own, ok := errors.AsType[*types.Error](err); ok {
		return types.NewError(own.Code, fmt.Sprintf("ipam plugin %s: %s", c.IPAM.Type, own.Msg), own.Details)
	}
	return failure(types.ErrInvalidNetworkConfig, fmt.Errorf("ipam.type %q: %w", c.IPAM.Type, err))
}

// ignoreNotFound returns nil for a daemon's error that the holder has no leases.
func ignoreNotFound(err error) error {
	if problem, ok := errors.AsType[*api.Problem](err); ok && problem.Kind == api.KindNotFound {
		return nil
	}
	return err
}
