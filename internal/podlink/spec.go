package podlink

import (
	"crypto/sha256"
	"encoding/base32"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"weft/internal/ether"
)

// HostPrefix is the prefix of the names that HostLinkName returns.
const HostPrefix = "vweft"

// maxName is the length of the longest interface name: IFNAMSIZ without the zero byte.
const maxName = 15

// Limits of an interface's MTU: RFC 791 and the veth driver.
const (
	minMTU = 68
	maxMTU = 65535
)

// Spec describes a pod's interface and the veth pair that it is one end of.
type Spec struct {
	// Netns is the path of the pod's namespace, Ifname the name of the interface there.
	Netns, Ifname string
	// HostName is the name of the host end, usually from HostLinkName. Bridge is the bridge that it becomes a port of.
	HostName, Bridge string
	// MTU of both ends, in bytes; 0: the kernel's default.
	MTU int
	// MAC of the pod end; zero: ether.FromIP of the first address, or the kernel's choice if there is no address.
	MAC ether.Addr
	// Addresses of the pod end, of either family, in any number.
	Addresses []Address
	// Hairpin lets the bridge send frames back to the pod that they came from. A pod needs it to reach itself through a
	// service address. The rules of package hairpin drop all other frames that would come back.
	Hairpin bool
	// DefaultRoute adds a default route through the first gateway of each family, unless the namespace has a default route of
	// that family already.
	DefaultRoute bool
	// MulticastRoute adds a route for multicast of IPv4, if the default route of the namespace leads through another interface: multicast
	// would leave there. A route to all groups that the namespace has stays. Multicast of IPv6 has a route of each interface.
	MulticastRoute bool
	// Routes are further routes.
	Routes []Route
	// Origin is recorded in the alias of the host end. Its NoHairpin is ignored.
	Origin Origin
}

// Address is an address of the pod end.
type Address struct {
	Prefix  netip.Prefix // the address itself with the length of its subnet
	Gateway netip.Addr   // may be invalid: none
}

// Route is a route out of the pod end. An invalid Gateway means that the destination is on the link.
type Route struct {
	Dst     netip.Prefix
	Gateway netip.Addr
}

// Result describes the pair that Attach created.
type Result struct {
	HostName  string
	HostMAC   ether.Addr // of the host end
	MAC       ether.Addr // of the pod end
	MTU       int
	Addresses []netip.Prefix
	Routes    []Route // with the default routes that were added
}

// HostLinkName returns the name of the host end for an interface of a lease holder: HostPrefix and 50 bits of the SHA-256 of
// both arguments. Existing links are found by it, so it must not change.
func HostLinkName(owner, ifname string) string {
	sum := sha256.Sum256([]byte(owner + "\x00" + ifname))
	text := strings.ToLower(base32.StdEncoding.EncodeToString(sum[:]))
	return HostPrefix + text[:maxName-len(HostPrefix)]
}

// HostLinkMAC returns the MAC of the host end with the given name. It is locally administered and begins with fe: a bridge uses
// the lowest MAC of its ports as its own, which must not change when a pod is added.
func HostLinkMAC(hostName string) ether.Addr {
	sum := sha256.Sum256([]byte(hostName))
	a := ether.Addr{0: 0xfe}
	copy(a[1:], sum[:])
	return a
}

// Validate checks s without access to the host. Its errors wrap ErrBadName for names, ErrBadSpec for everything else.
func (s Spec) Validate() error {
	for _, name := range []string{s.Ifname, s.HostName, s.Bridge} {
		if !validName(name) {
			return fmt.Errorf("%w: %q", ErrBadName, name)
		}
	}
	if s.MTU != 0 && (s.MTU < minMTU || s.MTU > maxMTU) {
		return fmt.Errorf("%w: MTU %d", ErrBadSpec, s.MTU)
	}
	if s.MAC.IsMulticast() {
		return fmt.Errorf("%w: %s is a group address", ErrBadSpec, s.MAC)
	}
	for i, a := range s.Addresses {
		if err := a.validate(); err != nil {
			return err
		}
		same := func(b Address) bool { return b.Prefix.Addr() == a.Prefix.Addr() }
		if slices.ContainsFunc(s.Addresses[:i], same) {
			return fmt.Errorf("%w: address %s twice", ErrBadSpec, a.Prefix)
		}
	}
	for _, r := range s.Routes {
		if !r.Dst.IsValid() || r.Gateway.IsValid() && r.Gateway.Is4() != r.Dst.Addr().Is4() {
			return fmt.Errorf("%w: route to %s via %s", ErrBadSpec, r.Dst, r.Gateway)
		}
	}
	return nil
}

func (a Address) validate() error {
	ip := a.Prefix.Addr()
	if !a.Prefix.IsValid() || ip.Is4In6() || ip.IsUnspecified() || ip.IsMulticast() || ip.IsLoopback() {
		return fmt.Errorf("%w: address %s", ErrBadSpec, a.Prefix)
	}
	if a.Gateway.IsValid() && a.Gateway.Is4() != ip.Is4() {
		return fmt.Errorf("%w: gateway %s for %s", ErrBadSpec, a.Gateway, a.Prefix)
	}
	return nil
}

// PodMAC returns the MAC of the pod end; zero: the kernel chooses.
func (s Spec) PodMAC() ether.Addr {
	if s.MAC.IsZero() && len(s.Addresses) > 0 {
		return ether.FromIP(s.Addresses[0].Prefix.Addr())
	}
	return s.MAC
}

// Defaults returns the default routes of s, at most one for each family. The namespace may have default routes already.
func (s Spec) Defaults() []Route {
	if !s.DefaultRoute {
		return nil
	}
	var routes []Route
	for _, all := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		i := slices.IndexFunc(s.Addresses, func(a Address) bool {
			return a.Gateway.IsValid() && a.Gateway.Is4() == all.Is4()
		})
		if i >= 0 {
			routes = append(routes, Route{Dst: netip.PrefixFrom(all, 0), Gateway: s.Addresses[i].Gateway})
		}
	}
	return routes
}

// Multicast is the route that MulticastRoute adds; ok is false where s has no address of IPv4, or does not want it.
func (s Spec) Multicast() (r Route, ok bool) {
	ok = s.MulticastRoute && slices.ContainsFunc(s.Addresses, func(a Address) bool { return a.Prefix.Addr().Is4() })
	return Route{Dst: groups}, ok
}

// groups are all groups of IPv4 (RFC 5771).
var groups = netip.MustParsePrefix("224.0.0.0/4")

// prefixes returns the addresses without their gateways.
func (s Spec) prefixes() []netip.Prefix {
	out := make([]netip.Prefix, len(s.Addresses))
	for i, a := range s.Addresses {
		out[i] = a.Prefix
	}
	return out
}

// validName reports whether the kernel accepts the name of an interface (dev_valid_name in net/core/dev.c).
func validName(name string) bool {
	return name != "" && len(name) <= maxName && name != "." && name != ".." && !strings.ContainsAny(name, "/: \t\n\v\f\r")
}
