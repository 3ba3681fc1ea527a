// Package hostnet reads what the network of this host looks like: its addresses, links, routes and MTU. It changes nothing.
package hostnet

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
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
	all := peers[:len(peers):len(peers)]
	for _, o := range outside {
		all = append(all, target.Target{Host: o.Addr().String(), Port: o.Port()})
	}
	for _, t := range all {
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

// Candidate returns the address that replaces one that the host has lost: the source address towards a peer that was known, else
// that of the default route, else a global address of the interface that had the lost one, or of hardware. Addresses of the bridges
// of container runtimes are none, nor are addresses of a family that no peer has. It sends no packet and resolves no names; not ok:
// there is none.
func Candidate(ctx context.Context, list []Address, peers []netip.AddrPort, skip Skip, link string) (addr netip.Addr, ok bool) {
	if len(peers) > 0 {
		list = only(list, func(a Address) bool {
			return slices.ContainsFunc(peers, func(p netip.AddrPort) bool { return p.Addr().Is4() == a.Addr.Is4() })
		})
	}
	for _, p := range append(peers[:len(peers):len(peers)], outside...) {
		a, ok := sourceFor(ctx, target.Target{Host: p.Addr().String(), Port: p.Port()})
		if own, here := find(list, a); ok && here && !skip.excludes(own) {
			return a, true
		}
	}
	if a, ok := firstGlobal(only(list, func(a Address) bool { return a.Link == link }), skip); ok {
		return a, true
	}
	return firstGlobal(only(list, func(a Address) bool { return !a.Virtual }), skip)
}

// only returns the addresses that f accepts.
func only(list []Address, f func(Address) bool) []Address {
	return slices.DeleteFunc(slices.Clone(list), func(a Address) bool { return !f(a) })
}

// excludes reports whether an address cannot be this host's on the underlay.
func (s Skip) excludes(a Address) bool {
	return !a.Up || a.Loopback || a.Link == s.Bridge || !a.Addr.IsGlobalUnicast() || contains(s.Ranges, a.Addr)
}

// outside are documentation addresses, which stand for all others: the default route leads to them.
var outside = []netip.AddrPort{netip.MustParseAddrPort("192.0.2.1:9"), netip.MustParseAddrPort("[2001:db8::1]:9")}

// SourceTo returns the address from which this host sends to another one, as its routes have it; not ok if it has none. It sends nothing.
func SourceTo(to netip.Addr) (source netip.Addr, ok bool) {
	return sourceFor(context.Background(), target.Target{Host: to.String(), Port: anyPort})
}

// anyPort is the port of a socket that sends nothing.
const anyPort = 9

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
		if !skip.excludes(a) && !a.Tentative && !a.Deprecated {
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
