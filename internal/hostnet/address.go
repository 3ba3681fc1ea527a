// Package hostnet reads what the network of this host looks like: its addresses, links, routes and MTU. It changes nothing.
package hostnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"time"

	"weft/internal/target"
)

// ResolveTimeout bounds the lookup of a peer's name when the own address is determined.
const ResolveTimeout = 2 * time.Second

// ErrNoAddress means that no interface of this host has an address that other nodes could reach.
var ErrNoAddress = errors.New("no interface has an address that other nodes could reach")

// Skip names what cannot be this host's address on the underlay.
type Skip struct {
	Bridge string         // the overlay's bridge
	Ranges []netip.Prefix // the overlay's ranges
}

// AdvertiseAddr chooses the address that the other nodes learn: the source address towards the first peer that resolves;
// else that of the default route; else the first global address of any interface that skip does not exclude. It sends no
// packet, but may resolve the peers' names. The error wraps ErrNoAddress where the host has no such address.
func AdvertiseAddr(ctx context.Context, peers []target.Target, skip Skip) (netip.Addr, error) {
	outside := []target.Target{{Host: "192.0.2.1", Port: 9}, {Host: "2001:db8::1", Port: 9}} // documentation addresses
	for _, t := range append(peers[:len(peers):len(peers)], outside...) {
		if a, ok := sourceFor(ctx, t); ok {
			return a, nil
		}
	}
	list, err := Addresses()
	if err != nil {
		return netip.Addr{}, err
	}
	a, ok := firstGlobal(list, skip)
	if !ok {
		return netip.Addr{}, ErrNoAddress
	}
	return a, nil
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
func firstGlobal(list []Address, skip Skip) (netip.Addr, bool) {
	for _, a := range list {
		if a.Up && !a.Loopback && a.Link != skip.Bridge && a.Addr.IsGlobalUnicast() && !contains(skip.Ranges, a.Addr) {
			return a.Addr, true
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

// Unspecified returns the unspecified address that stands for all addresses of the host, including IPv6 where the host
// supports it.
func Unspecified() netip.Addr {
	if l, err := net.Listen("tcp6", "[::1]:0"); err == nil { //nolint:noctx // binds and closes at once
		_ = l.Close()
		return netip.IPv6Unspecified()
	}
	return netip.IPv4Unspecified()
}
