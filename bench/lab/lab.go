// Package lab is the bench's underlay: hosts in network namespaces joined as the load wants it, whose network can be
// made lossy, slow, or as plain as a network card without offloads.
package lab

import (
	"context"
	"errors"
	"fmt"
	"net/netip"

	"weft/internal/nettest"
)

// Shape is how the hosts of a lab are joined.
type Shape int

// Shapes of a lab. The zero value is none.
const (
	// Pair is two hosts on one switch.
	Pair Shape = iota + 1
	// Three is three hosts on one switch; the first one is who the others send to.
	Three
	// Chain is two hosts that reach each other only through a third, which routes.
	Chain
)

// String returns the shape's name.
func (s Shape) String() string {
	return map[Shape]string{Pair: "pair", Three: "three", Chain: "chain"}[s]
}

// Lab is an underlay. It is used by one goroutine at a time.
type Lab struct {
	*nettest.Lab
	// Ends are the hosts that an overlay joins, in order. A router is not among them.
	Ends []*nettest.Host
	// Shape is what New was asked for.
	Shape Shape

	router *nettest.Host
	plain  bool
}

// End is where a load runs: a namespace and its address on the overlay.
type End struct {
	*nettest.Space
	Addr netip.Addr
}

// New builds a lab; it must be closed, which removes everything again. What an earlier run left when it was killed is removed as well.
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

// fill adds the hosts.
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

// addRouter puts a router between the two ends. All three stay on one switch, which carries nothing from one end to
// the other; that needs no second kind of lab, and the packets take the same way.
func (l *Lab) addRouter(ctx context.Context) (err error) {
	if l.router, err = l.AddHost("router"); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	const forward = "echo 1 >/proc/sys/net/ipv4/ip_forward; for f in /proc/sys/net/ipv4/conf/*/send_redirects; do echo 0 >$f; done"
	if _, err := l.router.Run(ctx, "sh", "-c", forward); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	a, b := l.Ends[0], l.Ends[1]
	for _, way := range [][2]*nettest.Host{{a, b}, {b, a}} {
		if _, err := way[0].Run(ctx, "ip", "route", "add", way[1].Addr().String(), "via", l.router.Addr().String()); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	return a.Cut(ctx, b)
}
