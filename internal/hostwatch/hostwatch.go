// Package hostwatch wakes a goroutine when the network of this host changes: links, addresses, routes, packet filters.
//
// A notification says only that something of a kind has changed. The receiver looks at the present state itself, so lost
// notifications (the kernel drops them under load, and reports that) do no harm. Some changes cause none: settings in /proc/sys
// and rules of iptables-legacy. A receiver looks for those periodically.
package hostwatch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/mdlayher/netlink"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"weft/internal/nftwatch"
	"weft/internal/signal"
)

// Kind is a set of kinds of changes.
type Kind uint8

// Kinds of changes.
const (
	Links     Kind = 1 << iota // links, their flags, their masters, and their settings as ports of a bridge
	Addresses                  // of either family
	Routes                     // routes and policy rules of either family
	Filters                    // tables of nftables, also those that iptables-nft writes
)

// groups are the multicast groups of rtnetlink that report a kind.
var groups = []struct {
	kind   Kind
	groups []uint32
}{
	{Links, []uint32{unix.RTNLGRP_LINK}},
	{Addresses, []uint32{unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR}},
	{Routes, []uint32{unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE, unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE}},
}

// filterGroup is the multicast group of nf_tables (NFNLGRP_NFTABLES in linux/netfilter/nfnetlink.h).
const filterGroup = 7

// policyTable is the name of the tables that weft-kube writes and watches. In a large cluster they change many times a second, so changes
// of them alone wake no other part of weft.
const policyTable = "weft-policy"

// Watcher receives notifications of one network namespace. Open makes it; it must run, or be closed.
type Watcher struct {
	conns   []*netlink.Conn
	changed signal.Chan
}

// Open subscribes to changes of the given kinds in the network namespace of the calling thread. Changes that happen after it
// returns are reported. It fails where the kernel lacks a kind: nf_tables may be missing.
func Open(kinds Kind) (*Watcher, error) {
	w := &Watcher{changed: signal.New()}
	var route []uint32
	for _, g := range groups {
		if kinds&g.kind != 0 {
			route = append(route, g.groups...)
		}
	}
	if err := w.subscribe(unix.NETLINK_ROUTE, route); err != nil {
		return nil, errors.Join(err, w.Close())
	}
	if kinds&Filters != 0 {
		if err := w.subscribe(unix.NETLINK_NETFILTER, []uint32{filterGroup}); err != nil {
			return nil, errors.Join(err, w.Close())
		}
	}
	return w, nil
}

// subscribe opens a socket for the groups of a netlink family; none if there are no groups.
func (w *Watcher) subscribe(family int, groups []uint32) error {
	if len(groups) == 0 {
		return nil
	}
	conn, err := netlink.Dial(family, nil)
	if err != nil {
		return fmt.Errorf("hostwatch: netlink: %w", err)
	}
	w.conns = append(w.conns, conn)
	for _, g := range groups {
		if err := conn.JoinGroup(g); err != nil {
			return fmt.Errorf("hostwatch: subscribe to group %d: %w", g, err)
		}
	}
	return nil
}

// Changed returns the channel of wake-ups. Changes that precede a receive are merged into one wake-up. It is never closed.
func (w *Watcher) Changed() <-chan struct{} { return w.changed.C() }

// Run delivers wake-ups until ctx ends or a socket fails, and closes the sockets. It may be called once.
func (w *Watcher) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	defer context.AfterFunc(ctx, func() { _ = w.Close() })()
	for _, c := range w.conns {
		group.Go(func() error { return w.receive(ctx, c) })
	}
	return errors.Join(group.Wait(), w.Close())
}

// receive sets the wake-up for each notification.
func (w *Watcher) receive(ctx context.Context, c *netlink.Conn) error {
	for {
		messages, err := c.Receive()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end of ctx closed the socket
		}
		if err != nil && !errors.Is(err, unix.ENOBUFS) { // with ENOBUFS the kernel has dropped notifications: there were changes
			return fmt.Errorf("hostwatch: %w", err)
		}
		if err != nil || slices.ContainsFunc(messages, matters) {
			w.changed.Set()
		}
	}
}

// matters reports whether a message must wake. The end of a transaction does not: reports of what it changed precede it.
func matters(m netlink.Message) bool {
	if uint16(m.Header.Type)>>8 != unix.NFNL_SUBSYS_NFTABLES {
		return true
	}
	table, ok := nftwatch.TableOf(m)
	return ok && table.Name != policyTable
}

// Close closes the sockets of a Watcher that was not run.
func (w *Watcher) Close() error {
	var errs []error
	for _, c := range w.conns {
		if err := c.Close(); err != nil && !errors.Is(err, io.ErrClosedPipe) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
