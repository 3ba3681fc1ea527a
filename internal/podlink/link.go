// Package podlink joins network namespaces to a bridge by veth pairs.
//
//	host namespace                        |  namespace of the pod
//	                                      |
//	bridge -- vweft3k5q… (host end) === veth === eth0 (pod end: MAC, addresses, routes)
//
// Linker is the interface that the CNI plugin and the daemon use. Kernel implements it with netlink. Package linktest has an
// implementation in memory for tests without root, and the test suite for both.
package podlink

import (
	"context"
	"errors"
	"net/netip"

	"weft/internal/ether"
)

// Errors that the errors of a Linker wrap.
var (
	// ErrNetns means that the path is missing, is not a network namespace, or is the namespace of the bridge.
	ErrNetns = errors.New("podlink: not a network namespace to join")
	// ErrExists means that an interface has the name already, in the namespace or on the host.
	ErrExists = errors.New("podlink: the interface exists")
	// ErrBadName means that the name is not valid for an interface.
	ErrBadName = errors.New("podlink: bad interface name")
	// ErrBadSpec means that an address, a route or a size in a Spec is invalid.
	ErrBadSpec = errors.New("podlink: bad specification")
	// ErrNoBridge means that the host has no bridge of that name.
	ErrNoBridge = errors.New("podlink: no such bridge")
	// ErrNoLink means that there is no interface of that name.
	ErrNoLink = errors.New("podlink: no such interface")
)

// Pair is a pair that exists: the kernel removes the host end with the namespace of the pod end.
type Pair struct {
	HostName string
	Origin   Origin
	// Running is true if a process runs in the namespace of the pod end.
	Running bool
}

// Linker creates, checks and removes veth pairs between a bridge in the namespace of the calling thread and other namespaces.
// Methods may be called concurrently for different interfaces.
type Linker interface {
	// Attach creates the pair that s describes, brings it up and announces it to the bridge. On an error it removes the
	// pair again. The errors wrap ErrNetns, ErrExists, ErrBadName, ErrBadSpec and ErrNoBridge.
	Attach(ctx context.Context, s Spec) (Result, error)

	// Adopt changes the pair with the host end and pod end of s so that it matches s in MTU, MAC, addresses and gateway, and removes the
	// addresses in drop from the pod end; other addresses stay. It does nothing to hairpin mode and Origin. The errors wrap ErrNetns,
	// ErrBadName, ErrBadSpec, ErrNoBridge, ErrNoLink where one end is missing, and ErrExists where the two are not one pair. After another
	// error the pair may match in part.
	Adopt(ctx context.Context, s Spec, drop []netip.Addr) error

	// Detach removes the pair with the given host end. It succeeds if the namespace or the interface does not exist, and
	// does not touch interfaces that Attach did not create. If hostName is empty, the pair is found by ifname in the
	// namespace at the path netns; otherwise these two may be empty.
	Detach(ctx context.Context, netns, ifname, hostName string) error

	// Check returns nil if the pair matches s, else an error that names the difference: an end is missing, down or on
	// another bridge, or an address or a route is missing. Further addresses and routes are allowed. MTU 0 and the zero MAC
	// in s match any.
	Check(s Spec) error

	// Confirm ends the pending state of a pair (Origin.Pending). Its error wraps ErrNoLink if there is no such host end.
	Confirm(hostName string) error

	// Pairs returns the pairs with a host end on this host, on any bridge or none, in any order.
	Pairs() ([]Pair, error)

	// Addresses returns the addresses, without link-local ones, and the MAC of any interface in a namespace. The errors wrap
	// ErrNetns and ErrNoLink.
	Addresses(netns, ifname string) ([]netip.Prefix, ether.Addr, error)
}
