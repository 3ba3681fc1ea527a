package direct

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"go4.org/netipx"
	"golang.org/x/sys/unix"

	"weft/internal/netdump"
)

// rulePriority is that of the rule that leads to the table: before the rule of the main table, which routes the range to the bridge.
const rulePriority = 6783

// protocol marks the routes and rules that weft made; "ip route" shows it (rtnetlink(7), rtm_protocol).
const protocol = 0x57

// routes are a routing table, and the rule by which packets from the bridge find it. The routes of all other packets are as they were, and
// where the table has no route for a packet from the bridge the next table decides.
type routes struct {
	nl     *netlink.Handle
	bridge string
	table  int
}

// route is one route of the table.
type route struct {
	dst  netip.Prefix
	hop  netip.Addr // not valid: dst is behind the link itself
	link int        // index
}

// families of rules and routes in netlink.
var netlinkFamilies = []int{unix.AF_INET, unix.AF_INET6}

// check returns an error that wraps ErrNotOurs if the table has a route of another program.
func (r routes) check() error {
	for _, f := range netlinkFamilies {
		list, err := r.list(f)
		if err != nil {
			return err
		}
		for _, found := range list {
			if found.Protocol != protocol {
				return fmt.Errorf("direct: %w %d: %s: remove it with \"ip route flush table %d\", or start weft with another --port",
					ErrNotOurs, r.table, found.Dst, r.table)
			}
		}
	}
	return nil
}

// list returns the routes of the table.
func (r routes) list(family int) ([]netlink.Route, error) {
	list, err := netdump.Repeat(func() ([]netlink.Route, error) {
		return r.nl.RouteListFiltered(family, &netlink.Route{Table: r.table}, netlink.RT_FILTER_TABLE)
	})
	if errors.Is(err, unix.EAFNOSUPPORT) || errors.Is(err, unix.ENOENT) { // no IPv6, or no such table yet
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("direct: read the routes of table %d: %w", r.table, err)
	}
	return list, nil
}

// set makes these the routes of the table, and adds the rules if they are missing. failed are routes that the kernel refuses.
func (r routes) set(want []route) (failed map[route]error, err error) {
	missing := make(map[route]bool, len(want))
	for _, w := range want {
		missing[w] = true
	}
	var extra []netlink.Route
	for _, f := range netlinkFamilies {
		list, err := r.list(f)
		if err != nil {
			return nil, err
		}
		for _, found := range list {
			is, ok := parseRoute(found)
			switch {
			case found.Protocol != protocol: // of another program: it is left alone
			case ok && missing[is]:
				delete(missing, is)
			default:
				extra = append(extra, found)
			}
		}
	}
	failed = map[route]error{}
	replaced := map[netip.Prefix]bool{}
	for w := range missing {
		if err := r.put(w); err != nil {
			failed[w] = err
		} else {
			replaced[w.dst] = true
		}
	}
	var errs []error
	for _, found := range extra {
		if dst, ok := netipx.FromStdIPNet(found.Dst); ok && replaced[dst] {
			continue
		}
		errs = append(errs, ignore(r.nl.RouteDel(&found), unix.ESRCH))
	}
	return failed, errors.Join(append(errs, r.setRules())...)
}

// put adds a route, or replaces that to the same destination.
func (r routes) put(w route) error {
	if err := r.nl.RouteReplace(r.netlink(w)); err != nil {
		return fmt.Errorf("direct: route to %s: %w", w.dst, err)
	}
	return nil
}

// netlink returns a route in the form of netlink.
func (r routes) netlink(w route) *netlink.Route {
	n := &netlink.Route{Dst: netipx.PrefixIPNet(w.dst), LinkIndex: w.link, Table: r.table, Protocol: protocol}
	switch {
	case !w.hop.IsValid():
		n.Scope = netlink.SCOPE_LINK
	case w.dst.Addr().Is4() == w.hop.Is4():
		n.Gw = w.hop.AsSlice()
	default:
		n.Via = &netlink.Via{AddrFamily: unix.AF_INET6, Addr: w.hop.AsSlice()} // since Linux 5.2
	}
	return n
}

// parseRoute is the reverse of routes.netlink.
func parseRoute(n netlink.Route) (r route, ok bool) {
	if n.Dst == nil {
		return r, false
	}
	r.link = n.LinkIndex
	r.dst, ok = netipx.FromStdIPNet(n.Dst)
	if via, is := n.Via.(*netlink.Via); is {
		r.hop, _ = netip.AddrFromSlice(via.Addr)
	} else if hop, valid := netip.AddrFromSlice(n.Gw); valid {
		r.hop = hop.Unmap()
	}
	return r, ok
}

// rule returns the rule that leads to the table.
func (r routes) rule(family int) *netlink.Rule {
	rule := netlink.NewRule()
	rule.Family, rule.IifName, rule.Table, rule.Priority, rule.Protocol = family, r.bridge, r.table, rulePriority, protocol
	return rule
}

// rules returns the rules that lead to the table.
func (r routes) rules(family int) ([]netlink.Rule, error) {
	list, err := netdump.Repeat(func() ([]netlink.Rule, error) {
		return r.nl.RuleListFiltered(family, &netlink.Rule{Table: r.table}, netlink.RT_FILTER_TABLE)
	})
	if errors.Is(err, unix.EAFNOSUPPORT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("direct: read the routing rules: %w", err)
	}
	return list, nil
}

// setRules adds the rules that are missing.
func (r routes) setRules() error {
	var errs []error
	for _, f := range netlinkFamilies {
		list, err := r.rules(f)
		found := false
		for _, rule := range list {
			found = found || rule.IifName == r.bridge
		}
		if err == nil && !found {
			err = ignore(ignore(r.nl.RuleAdd(r.rule(f)), unix.EEXIST), unix.EAFNOSUPPORT)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("direct: routing rule for %s: %w", r.bridge, err))
		}
	}
	return errors.Join(errs...)
}

// remove removes the rules and the routes of weft in the tables for which of returns true.
func (r routes) remove(of func(table int) bool) error {
	var errs []error
	for _, f := range netlinkFamilies {
		rules, err := netdump.Repeat(func() ([]netlink.Rule, error) { return r.nl.RuleList(f) })
		errs = append(errs, ignore(err, unix.EAFNOSUPPORT))
		for _, rule := range rules {
			if rule.Protocol == protocol && of(rule.Table) {
				rule.Family = f
				errs = append(errs, ignore(r.nl.RuleDel(&rule), unix.ENOENT))
			}
		}
		list, err := netdump.Repeat(func() ([]netlink.Route, error) {
			return r.nl.RouteListFiltered(f, &netlink.Route{Protocol: protocol}, netlink.RT_FILTER_PROTOCOL|netlink.RT_FILTER_TABLE)
		})
		errs = append(errs, ignore(err, unix.EAFNOSUPPORT))
		for _, found := range list {
			if of(found.Table) {
				errs = append(errs, ignore(r.nl.RouteDel(&found), unix.ESRCH))
			}
		}
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("direct: remove routes: %w", err)
	}
	return nil
}

// uplink is the interface of the underlay.
type uplink struct {
	name  string
	index int
	local netip.Addr // its link-local IPv6 address; not valid: it has none
	up    bool
	mtu   int // bytes
}

// findUplink returns the interface that has an address. The error wraps ErrNoLink.
func findUplink(nl *netlink.Handle, addr netip.Addr) (u uplink, err error) {
	list, err := netdump.Repeat(func() ([]netlink.Addr, error) { return nl.AddrList(nil, netlink.FAMILY_ALL) })
	if err != nil {
		return u, fmt.Errorf("direct: read the addresses of this host: %w", err)
	}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && ip.Unmap() == addr {
			u.index = a.LinkIndex
		}
	}
	if u.index == 0 {
		return u, fmt.Errorf("direct: %w: %s", ErrNoLink, addr)
	}
	for _, a := range list {
		if ip, ok := netip.AddrFromSlice(a.IP); ok && a.LinkIndex == u.index && ip.Is6() && ip.IsLinkLocalUnicast() {
			u.local = ip
		}
	}
	link, err := nl.LinkByIndex(u.index)
	if err != nil {
		return u, fmt.Errorf("direct: the interface of %s: %w", addr, err)
	}
	u.name, u.up, u.mtu = link.Attrs().Name, isUp(link, nil), link.Attrs().MTU
	return u, nil
}

// OwnLink returns the link-local IPv6 address of the interface with an address of this host; not valid: it has none. The error wraps
// ErrNoLink.
func OwnLink(local netip.Addr) (netip.Addr, error) {
	nl, err := netlink.NewHandle(unix.NETLINK_ROUTE)
	if err != nil {
		return netip.Addr{}, fmt.Errorf("direct: netlink: %w", err)
	}
	defer nl.Close()
	u, err := findUplink(nl, local)
	return u.local, err
}

// onLink reports whether the host sends to an address without a router, over the uplink.
func (u uplink) onLink(nl *netlink.Handle, addr netip.Addr) bool {
	list, err := nl.RouteGet(addr.AsSlice())
	if err != nil || len(list) == 0 {
		return false
	}
	r := list[0]
	return r.LinkIndex == u.index && r.Gw == nil && r.Via == nil && r.Type == unix.RTN_UNICAST
}

// ignore returns err unless it is errno.
func ignore(err error, errno unix.Errno) error {
	if errors.Is(err, errno) {
		return nil
	}
	return err
}

// hostPrefix returns the prefix of one address.
func hostPrefix(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }
