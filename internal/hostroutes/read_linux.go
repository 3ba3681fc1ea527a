package hostroutes

import (
	"encoding/binary"
	"fmt"
	"math"
	"net"
	"net/netip"
	"slices"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"weft/internal/hostnet"
	"weft/internal/netdump"
)

// Read returns the rules of this host, and those routes of all tables that overlap a range or have a gateway inside one.
func Read(ranges []netip.Prefix) (Tables, error) {
	var t Tables
	names := map[int]string{}
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		if !slices.ContainsFunc(ranges, func(r netip.Prefix) bool { return r.Addr().Is6() == (family == unix.AF_INET6) }) {
			continue // the kernel may lack the family
		}
		rules, err := netdump.Repeat(func() ([]netlink.Rule, error) { return netlink.RuleList(family) })
		if err != nil {
			return t, fmt.Errorf("hostroutes: read the rules: %w", err)
		}
		dropping, err := readDropping(family)
		if err != nil {
			return t, fmt.Errorf("hostroutes: read the rules: %w", err)
		}
		for _, r := range rules {
			drop := Kind("")
			if r.Table == 0 {
				drop = dropping[r.Priority]
			}
			if r.Table == 0 && drop == "" || !applies(r) {
				continue
			}
			to, _ := hostnet.PrefixOf(r.Dst)
			t.Rules = append(t.Rules, Rule{
				IPv6: family == unix.AF_INET6, Priority: max(r.Priority, 0), Table: r.Table, Drops: drop, To: to,
				Suppress: r.SuppressPrefixlen,
			})
		}
		routes, err := netdump.Repeat(func() (kept []netlink.Route, err error) {
			all := &netlink.Route{Table: unix.RT_TABLE_UNSPEC}
			err = netlink.RouteListFilteredIter(family, all, netlink.RT_FILTER_TABLE, func(r netlink.Route) bool {
				if concerns(r, ranges) {
					kept = append(kept, r)
				}
				return true
			})
			return kept, err
		})
		if err != nil {
			return t, fmt.Errorf("hostroutes: read the routes: %w", err)
		}
		for _, r := range routes {
			t.Routes = append(t.Routes, routeOf(r, family, names)...)
		}
	}
	return t, nil
}

// readDropping returns what the rules of a family without a table do, by their priorities. Package netlink does not report it.
func readDropping(family int) (map[int]Kind, error) {
	// The types are those of routes which do the same (FR_ACT_BLACKHOLE and others in linux/fib_rules.h).
	drops := map[uint8]Kind{unix.RTN_BLACKHOLE: Blackhole, unix.RTN_UNREACHABLE: Unreachable, unix.RTN_PROHIBIT: Prohibit}
	messages, err := netdump.Repeat(func() ([][]byte, error) {
		req := nl.NewNetlinkRequest(unix.RTM_GETRULE, unix.NLM_F_DUMP)
		req.AddData(nl.NewIfInfomsg(family))
		return req.Execute(unix.NETLINK_ROUTE, unix.RTM_NEWRULE)
	})
	if err != nil {
		return nil, err
	}
	found := make(map[int]Kind)
	for _, m := range messages {
		if len(m) < unix.SizeofRtMsg {
			continue
		}
		msg := nl.DeserializeRtMsg(m)
		kind, known := drops[msg.Type]
		if !known {
			continue
		}
		attrs, err := nl.ParseRouteAttr(m[msg.Len():])
		if err != nil {
			return nil, err
		}
		priority := 0
		for _, a := range attrs {
			if a.Attr.Type == nl.FRA_PRIORITY && len(a.Value) == 4 {
				priority = int(binary.NativeEndian.Uint32(a.Value))
			}
		}
		found[priority] = kind
	}
	return found, nil
}

// applies reports whether packets of the host to a pod match a rule: packets without mark, type of service or source address.
func applies(r netlink.Rule) bool {
	if r.Goto > 0 {
		return false
	}
	selects := r.Mark != 0 || r.Tos != 0 || r.TunID > 0 || isPrefix(r.Src) || r.IifName != "" && r.IifName != loopback ||
		r.OifName != "" || r.Dport != nil || r.Sport != nil || r.IPProto > 0 || r.UIDRange != nil
	return selects == r.Invert
}

// isPrefix reports whether a selector of addresses excludes any.
func isPrefix(n *net.IPNet) bool {
	p, ok := hostnet.PrefixOf(n)
	return ok && p.Bits() > 0
}

// concerns reports whether a route overlaps a range, or its gateway is in one.
func concerns(r netlink.Route, ranges []netip.Prefix) bool {
	dst, ok := hostnet.PrefixOf(r.Dst)
	if !ok {
		return r.Dst == nil // a default route of old kernels
	}
	gateway, _ := netip.AddrFromSlice(r.Gw)
	return slices.ContainsFunc(ranges, func(rng netip.Prefix) bool { return rng.Overlaps(dst) || rng.Contains(gateway.Unmap()) })
}

var kinds = map[int]Kind{
	unix.RTN_UNICAST: Unicast, unix.RTN_LOCAL: Local, unix.RTN_BLACKHOLE: Blackhole, unix.RTN_UNREACHABLE: Unreachable,
	unix.RTN_PROHIBIT: Prohibit, unix.RTN_THROW: Throw,
}

// routeOf converts a route; none for a kind that no packet to a pod takes, such as broadcast. names caches names of interfaces.
func routeOf(r netlink.Route, family int, names map[int]string) []Route {
	kind, known := kinds[r.Type]
	if !known {
		return nil
	}
	dst, ok := hostnet.PrefixOf(r.Dst)
	if !ok {
		dst = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if family == unix.AF_INET6 {
			dst = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	index := r.LinkIndex
	gateway := r.Gw
	if len(r.MultiPath) > 0 {
		index, gateway = r.MultiPath[0].LinkIndex, r.MultiPath[0].Gw
	}
	out := Route{Dst: dst, Kind: kind, Table: r.Table, Metric: max(r.Priority, 0)}
	if r.Priority > math.MaxInt32 {
		out.Metric = math.MaxInt32
	}
	if via, ok := netip.AddrFromSlice(gateway); ok {
		out.Gateway = via.Unmap()
	}
	if index > 0 && (kind == Unicast || kind == Local) {
		if names[index] == "" {
			names[index] = hostnet.LinkName(index)
		}
		out.Link = names[index]
	}
	return []Route{out}
}
