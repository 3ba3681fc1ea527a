package podlink

import (
	"errors"
	"net/netip"
)

// ErrOldKernel says that the kernel does not tell the addresses of another namespace: it is older than Linux 4.20.
var ErrOldKernel = errors.New("podlink: the kernel does not tell addresses of other namespaces, which Linux 4.20 and later do")

// foreignAlias is the alias of host ends whose pods have addresses that the daemon did not give out.
const foreignAlias = "weft: addresses by another IPAM plugin"

// Port is a host end that is a port of a bridge, whoever has made it under a name of HostLinkName's form.
type Port struct {
	Name    string
	Foreign bool // made by a Spec that says so
	// Addrs are the addresses of the pod end, but link-local ones; Err says why they are not known.
	Addrs []netip.Addr
	Err   error

	index, peer, netns int // of the end here, of the other one, and of its namespace, as the kernel numbers them here
}
