package daemon

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"github.com/vishvananda/netlink"

	"weft/mesh"
	"weft/router/wire"
)

// resolveLimit bounds the look-up of the first PEER's name when the own address is sought.
const resolveLimit = 2 * time.Second

// defaultUnderlayMTU is taken where the interface of the own address is not to be found, as behind a NAT.
const defaultUnderlayMTU = 1500

var errNoAddress = errors.New("no interface has an address that other nodes could reach")

// advertiseAddr chooses the address that the other nodes are told: the one given; else the one from which the first
// PEER is reached; else that of the default route; else the first global one of any interface.
func (c *Config) advertiseAddr(ctx context.Context) (netip.Addr, error) {
	if c.Advertise.IsValid() {
		return c.Advertise.Unmap(), nil
	}
	for _, p := range c.Peers {
		t, err := mesh.ParseTarget(p, uint16(c.Port))
		if err != nil {
			continue
		}
		if a, ok := sourceFor(ctx, t); ok {
			return a, nil
		}
	}
	for _, outside := range []string{"192.0.2.1", "2001:db8::1"} { // documentation addresses: nothing is sent
		if a, ok := sourceFor(ctx, mesh.Target{Host: outside, Port: uint16(c.Port)}); ok {
			return a, nil
		}
	}
	if a, ok := c.firstGlobal(); ok {
		return a, nil
	}
	return netip.Addr{}, refuse("--advertise", "Give the address at which the other nodes reach this one.", "%w", errNoAddress)
}

// sourceFor asks the kernel which own address a datagram to t would carry.
func sourceFor(ctx context.Context, t mesh.Target) (netip.Addr, bool) {
	ctx, cancel := context.WithTimeout(ctx, resolveLimit)
	defer cancel()
	var d net.Dialer
	conn, err := d.DialContext(ctx, "udp", t.String())
	if err != nil {
		return netip.Addr{}, false
	}
	defer func() { _ = conn.Close() }()
	local, ok := conn.LocalAddr().(*net.UDPAddr)
	if !ok {
		return netip.Addr{}, false
	}
	a := local.AddrPort().Addr().Unmap()
	return a, a.IsGlobalUnicast()
}

// firstGlobal returns the first address of an interface that is neither the bridge nor in an overlay range.
func (c *Config) firstGlobal() (netip.Addr, bool) {
	links, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, l := range links {
		if l.Flags&net.FlagUp == 0 || l.Flags&net.FlagLoopback != 0 || l.Name == c.Bridge {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().IsGlobalUnicast() && !c.inRanges(p.Addr()) {
				return p.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

func (c *Config) inRanges(a netip.Addr) bool { return c.rangeOf(a).IsValid() }

// rangeOf returns the range that an address is in; an invalid one where it is in none.
func (c *Config) rangeOf(a netip.Addr) netip.Prefix {
	for _, r := range c.Ranges {
		if r.Contains(a) {
			return r
		}
	}
	return netip.Prefix{}
}

// overlayMTU returns the MTU for the bridge and the pods: the one given, or what is left of the MTU of the interface
// that has the address self, with room for the tag of sealed datagrams where there is a secret.
func (c *Config) overlayMTU(self netip.Addr, sealed bool) int {
	if c.MTU != 0 {
		return c.MTU
	}
	return wire.MTU(underlayMTU(self), sealed, self.Is6())
}

func underlayMTU(self netip.Addr) int {
	links, err := netlink.LinkList()
	if err != nil {
		return defaultUnderlayMTU
	}
	for _, l := range links {
		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			continue
		}
		for _, a := range addrs {
			if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == self {
				return min(l.Attrs().MTU, maxMTU)
			}
		}
	}
	return defaultUnderlayMTU
}
