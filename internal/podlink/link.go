// Package podlink joins network namespaces to a bridge by veth pairs.
//
//	host namespace                        │  the pod's namespace
//	                                      │
//	bridge ── vweft3k5q… (host end) ═══ veth ═══ eth0 (pod end: MAC, addresses, routes)
//
// Linker is the seam that the CNI plugin and the daemon use, Kernel its implementation through netlink; linktest holds
// a recorder for tests without root and the suite that both pass.
package podlink

import (
	"context"
	"errors"
	"net/netip"

	"weft/internal/ether"
)

// Errors that a Linker's errors wrap where a caller may want to branch.
var (
	// ErrNetns says that the path is missing, is no network namespace, or is the namespace of the bridge itself.
	ErrNetns = errors.New("podlink: not a network namespace to join")
	// ErrExists says that an interface of the name is there already, in the namespace or on the host.
	ErrExists = errors.New("podlink: the interface exists")
	// ErrBadName says that the kernel would not take the name for an interface.
	ErrBadName = errors.New("podlink: bad interface name")
	// ErrBadSpec says that an address, a route or a size in a Spec makes no sense.
	ErrBadSpec = errors.New("podlink: bad specification")
	// ErrNoBridge says that the host has no bridge of that name.
	ErrNoBridge = errors.New("podlink: no such bridge")
	// ErrNoLink says that the interface is not there.
	ErrNoLink = errors.New("podlink: no such interface")
)

// Linker makes, checks and removes veth pairs between a bridge in the namespace of the calling thread and other
// namespaces. Methods may be called concurrently, for different interfaces.
type Linker interface {
	// Attach makes the pair that s describes and returns it, up and announced to the bridge. On an error nothing is
	// left behind. The errors wrap ErrNetns, ErrExists, ErrBadName, ErrBadSpec and ErrNoBridge.
	Attach(ctx context.Context, s Spec) (Result, error)

	// Detach removes the pair with the given host end. That the namespace, the interface or both are gone is success;
	// an interface that is not one end of a pair made by Attach is left alone. Where hostName is empty the pair is
	// found by ifname in the namespace at the path netns; otherwise those two may be empty.
	Detach(ctx context.Context, netns, ifname, hostName string) error

	// Check returns an error that says what differs from s: an end that is missing, down or elsewhere, an address or a
	// route that is not there. What others added is fine. MTU 0 and the zero MAC in s stand for any.
	Check(s Spec) error

	// Addresses returns the addresses, other than link-local ones, and the MAC of an interface in a namespace,
	// whoever made it. The errors wrap ErrNetns and ErrNoLink.
	Addresses(netns, ifname string) ([]netip.Prefix, ether.Addr, error)
}
