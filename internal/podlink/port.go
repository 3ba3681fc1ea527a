package podlink

import (
	"errors"
	"net/netip"
)

// ErrOldKernel means that the kernel cannot list the addresses in another namespace: it is older than Linux 4.20.
var ErrOldKernel = errors.New("podlink: the kernel cannot list addresses of other namespaces: Linux 4.20 or later is needed")

// Port is a port of a bridge with a name in the form of HostLinkName.
type Port struct {
	Name      string
	Delegated bool // made from a Spec with Delegated
	MTU       int  // of the host end, in bytes; PodMTU returns that of the pod end
	// Addrs are the addresses of the pod end without link-local ones. If Err is not nil, they are unknown.
	Addrs []netip.Addr
	Err   error

	index, peer, netns int // index of the host end, index of the pod end, and ID of its namespace, as seen from here
}
