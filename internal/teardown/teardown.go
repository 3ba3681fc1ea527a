// Package teardown removes from a host what a weft daemon that has stopped left in its kernel: links, routes and rules, for a node that
// weft is removed from. A daemon that runs does this itself ("weft leave").
package teardown

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/nftables"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"weft/internal/dockerfilter"
	"weft/internal/netdump"
	"weft/internal/podlink"
	"weft/router/carrier/direct"
	"weft/router/carrier/wireguard"
	"weft/tap/bridge"
)

// defaultBridge is the bridge of a daemon without --bridge. Its rule in Docker's filter is removed also if the bridge is gone.
const defaultBridge = "weave"

// Names of the tables of nftables: all parts of weft use tables with these names, and nothing else may.
const (
	table       = "weft"
	tablePrefix = "weft-"
)

// Report is what Host found.
type Report struct {
	Pods int      // links of pods: the pods have lost their network
	Kept []string // names of bridges that stay, because another program has ports on them
}

// Host removes the pods' links, the devices to other nodes, their routes, the bridge and all tables of nftables from the network
// namespace of the calling thread. No daemon may run there: it would make everything again. Host goes on after an error, and succeeds where
// nothing is left.
func Host(ctx context.Context) (r Report, err error) {
	list, err := bridges()
	if err != nil {
		return r, err
	}
	// First the links, while the rules that protect them are in force.
	var errs []error
	r.Pods, err = removeLinks(func(l netlink.Link) bool {
		return l.Type() == "veth" && strings.HasPrefix(l.Attrs().Name, podlink.HostPrefix)
	})
	errs = append(errs, err)
	_, err = removeLinks(func(l netlink.Link) bool { return l.Type() == "vxlan" && l.Attrs().Alias == bridge.Alias })
	errs = append(errs, err, wireguard.RemoveOthers(""), direct.Remove(ctx))
	for _, name := range list {
		info, err := bridge.Inspect(name)
		switch {
		case err != nil:
			errs = append(errs, err)
		case info.State == bridge.Found && len(info.Ports) > 0:
			r.Kept = append(r.Kept, name)
		default:
			errs = append(errs, bridge.Remove(name))
		}
	}
	if !slices.Contains(list, defaultBridge) {
		list = append(list, defaultBridge)
	}
	for _, name := range list {
		errs = append(errs, dockerfilter.Remove(name))
	}
	errs = append(errs, removeTables())
	if err := errors.Join(errs...); err != nil {
		return r, fmt.Errorf("teardown: %w", err)
	}
	return r, nil
}

// bridges returns the names of the bridges that weft has made.
func bridges() (names []string, err error) {
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		return nil, fmt.Errorf("teardown: list links: %w", err)
	}
	for _, l := range links {
		if l.Type() == "bridge" && l.Attrs().Alias == bridge.Alias {
			names = append(names, l.Attrs().Name)
		}
	}
	return names, nil
}

// removeLinks deletes the links that match, and returns their number. One that goes meanwhile is no error: a pod may end, and a link goes
// with its peer.
func removeLinks(match func(netlink.Link) bool) (n int, err error) {
	links, err := netdump.Repeat(netlink.LinkList)
	if err != nil {
		return 0, fmt.Errorf("list links: %w", err)
	}
	var errs []error
	for _, l := range links {
		if !match(l) {
			continue
		}
		n++
		if err := netlink.LinkDel(l); err != nil && !errors.Is(err, unix.ENODEV) {
			errs = append(errs, fmt.Errorf("delete %s: %w", l.Attrs().Name, err))
		}
	}
	return n, errors.Join(errs...)
}

// noNFTables are the errors of a kernel without nftables, or without a family of it: there can be no tables.
var noNFTables = []error{unix.EINVAL, unix.EPROTONOSUPPORT, unix.EOPNOTSUPP, unix.EAFNOSUPPORT}

// removeTables deletes all tables of weft, of any family.
func removeTables() error {
	conn, err := nftables.New()
	if err != nil {
		return fmt.Errorf("nftables: %w", err)
	}
	tables, err := conn.ListTables()
	if slices.ContainsFunc(noNFTables, func(e error) bool { return errors.Is(err, e) }) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("list the tables of nftables: %w", err)
	}
	found := false
	for _, t := range tables {
		if t.Name == table || strings.HasPrefix(t.Name, tablePrefix) {
			conn.DelTable(t)
			found = true
		}
	}
	if !found {
		return nil
	}
	if err := conn.Flush(); err != nil {
		return fmt.Errorf("delete tables of nftables: %w", err)
	}
	return nil
}
