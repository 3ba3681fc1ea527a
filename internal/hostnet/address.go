// Package hostnet reads what the network of this host looks like: its addresses, links, routes and MTU. It changes nothing.
package hostnet

import (
	"context"
	"net"
	"net/netip"
	"time"

	"weft/internal/target"
)

// ResolveTimeout bounds the lookup of a peer's name when the own address is determined.
const ResolveTimeout = 2 * time.Second

// Skip names what cannot be this host's address on the underlay.
type Skip struct {
	Bridge string         // the overlay's bridge
	Ranges []netip.Prefix // the overlay's ranges
}

// AdvertiseAddr chooses the address that the other nodes learn: the source address towards the first peer that resolves;
// else that of the default route; else the first global address of any interface that skip does not exclude. It sends no
// packet, but may resolve the peers' names. ok is false where the host has no such address.
func AdvertiseAddr(ctx context.Context, peers []target.Target, skip Skip) (addr netip.Addr, ok bool) {
	outside := []target.Target{{Host: "192.0.2.1", Port: 9}, {Host: "2001:db8::1", Port: 9}} // documentation addresses
	for _, t := range append(peers[:len(peers):len(peers)], outside...) {
		if a, ok := sourceFor(ctx, t); ok {
			return a, true
		}
	}
	return firstGlobal(skip)
}

// sourceFor asks the kernel for the source address of a datagram to t.
func sourceFor(ctx context.Context, t target.Target) (netip.Addr, bool) {
	ctx, cancel := context.WithTimeout(ctx, ResolveTimeout)
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

// firstGlobal returns the first global address of an interface that is up, is not the loopback, and is not excluded.
func firstGlobal(skip Skip) (netip.Addr, bool) {
	links, err := net.Interfaces()
	if err != nil {
		return netip.Addr{}, false
	}
	for _, l := range links {
		if l.Flags&net.FlagUp == 0 || l.Flags&net.FlagLoopback != 0 || l.Name == skip.Bridge {
			continue
		}
		addrs, err := l.Addrs()
		if err != nil {
			continue
		}
		for _, a := range addrs {
			p, err := netip.ParsePrefix(a.String())
			if err == nil && p.Addr().IsGlobalUnicast() && !contains(skip.Ranges, p.Addr()) {
				return p.Addr(), true
			}
		}
	}
	return netip.Addr{}, false
}

func contains(ranges []netip.Prefix, a netip.Addr) bool {
	for _, r := range ranges {
		if r.Contains(a) {
			return true
		}
	}
	return false
}

// IsLocal reports whether a is an address of this host.
func IsLocal(a netip.Addr) bool {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return false
	}
	for _, n := range addrs {
		if p, err := netip.ParsePrefix(n.String()); err == nil && p.Addr().Unmap() == a.Unmap() {
			return true
		}
	}
	return false
}

// Unspecified returns the unspecified address that stands for all addresses of the host, including IPv6 where the host
// supports it.
func Unspecified() netip.Addr {
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil { //nolint:noctx // binds and closes at once
		_ = l.Close()
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
