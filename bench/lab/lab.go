// Package lab is the underlay of the bench: hosts in network namespaces, connected in the shape that a load needs. Their
// network can drop packets, limit the rate, or behave like a network card without offloads.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"weft/internal/nettest"
)

// Shape is how the hosts of a lab are connected.
type Shape int

// Shapes of a lab. The zero value is invalid.
const (
	// Pair is two hosts on one switch.
	Pair Shape = iota + 1
	// Three is three hosts on one switch. The second and third send to the first.
	Three
	// Chain is two hosts that reach each other only through a router.
	Chain
)

// String returns the shape's name.
func (s Shape) String() string {
	return map[Shape]string{Pair: "pair", Three: "three", Chain: "chain"}[s]
}

// Lab is an underlay. It is used by one goroutine at a time.
type Lab struct {
	*nettest.Lab
	// Ends are the hosts that an overlay connects, in order, without the router.
	Ends []*nettest.Host
	// Shape is the shape that was given to New.
	Shape Shape

	router *nettest.Host
	plain  bool
}

// End is an endpoint of loads: a namespace and its address on the overlay.
type End struct {
	*nettest.Space
	Addr netip.Addr
}

// New builds a lab. The caller must close it, which removes everything that New created. New also removes what an earlier
// run left behind if it was killed.
func New(ctx context.Context, shape Shape) (*Lab, error) {
	inner, err := nettest.New(nettest.Config{})
	if err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	l := &Lab{Lab: inner, Shape: shape}
	if err := l.fill(ctx); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// fill adds the hosts of the shape.
func (l *Lab) fill(ctx context.Context) error {
	names := map[Shape][]string{Pair: {"a", "b"}, Three: {"a", "b", "c"}, Chain: {"a", "b"}}[l.Shape]
	if names == nil {
		return fmt.Errorf("lab: no shape %d", l.Shape)
	}
	for _, name := range names {
		h, err := l.AddHost(name)
		if err != nil {
			return fmt.Errorf("lab: %w", err)
		}
		l.Ends = append(l.Ends, h)
	}
	if l.Shape == Chain {
		return l.addRouter(ctx)
	}
	return nil
}

// addRouter adds a router between the two ends. All three hosts are on one switch, which drops frames from one end to the
// other. The packets take the same path as with two switches.
func (l *Lab) addRouter(ctx context.Context) (err error) {
	if l.router, err = l.AddHost("router"); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	const forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; for f in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 >$f; done"
	if _, err := l.router.Run(ctx, "sh", "-c", forward); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	a, b := l.Ends[0], l.Ends[1]
	for _, pair := range [][2]*nettest.Host{{a, b}, {b, a}} {
		if _, err := pair[0].Run(ctx, "ip", "route", "add", pair[1].Addr().String(), "via", l.router.Addr().String()); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return a.Cut(ctx, b)
}
