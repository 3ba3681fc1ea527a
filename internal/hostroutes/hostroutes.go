// Package hostroutes judges the routing tables of this host: which parts of an overlay's range the host would route elsewhere
// than to the bridge of the pods, and which addresses outside the overlay the range would hide.
//
// Two routes that overlap are no conflict by themselves. The longest prefix wins, so a route of 10.0.0.0/8 or a default route beside
// a range of 10.32.0.0/12 does no harm, and a route of 10.40.0.0/16 does. The functions are pure; Read reads the tables.
package hostroutes

import (
	"fmt"
	"net/netip"
	"slices"
)

// Numbers of tables (rtnetlink(7)).
const (
	TableMain  = 254
	TableLocal = 255
)

// Kind is what a route does with packets. The zero Kind is invalid.
type Kind string

// Kinds of routes, as in ip-route(8).
const (
	Unicast     Kind = "unicast"
	Local       Kind = "local"
	Blackhole   Kind = "blackhole"
	Unreachable Kind = "unreachable"
	Prohibit    Kind = "prohibit"
	Throw       Kind = "throw" // the next table decides
)

// Route is one entry of a table.
type Route struct {
	Dst     netip.Prefix
	Kind    Kind
	Table   int
	Link    string     // empty: none
	Gateway netip.Addr // invalid: none
	Metric  int        // the lower one wins
	// Rule is the priority of the rule that decides without a table, for a Route that stands for one; 0: it is a route.
	Rule int
}

// Rule is a policy rule that packets of the host without marks match: such packets look into Table, or are dropped.
type Rule struct {
	IPv6     bool
	Priority int // the lower one comes first
	Table    int
	Drops    Kind         // Blackhole, Unreachable or Prohibit: the rule has no table; empty: it has one
	To       netip.Prefix // the rule is for packets to it; invalid: to any address
	// Suppress is the length of prefixes up to which a result of the table is ignored; -1: none.
	Suppress int
}

// Tables are rules and routes of a host. Routes may be limited to those that concern a range.
type Tables struct {
	Rules  []Rule
	Routes []Route
}

// String returns the route as "ip route" prints it.
func (r Route) String() string {
	if r.Rule > 0 {
		return fmt.Sprintf("rule %d: to %s %s", r.Rule, r.Dst, r.Kind)
	}
	text := r.Dst.String()
	if r.Kind != Unicast {
		text = string(r.Kind) + " " + text
	}
	if r.Gateway.IsValid() {
		text += " via " + r.Gateway.String()
	}
	if r.Link != "" {
		text += " dev " + r.Link
	}
	if r.Table != TableMain && r.Kind != Local {
		text += fmt.Sprintf(" table %d", r.Table)
	}
	return text
}

// Connected returns the route that the kernel makes for an address of a bridge with the prefix length of the range.
func Connected(rng netip.Prefix, bridge string) Route {
	r := Route{Dst: rng, Kind: Unicast, Table: TableMain, Link: bridge}
	if rng.Addr().Is6() {
		r.Metric = 256 // IP6_RT_PRIO_ADDRCONF
	}
	return r
}

// With returns the tables with another route, which is added after the others.
func (t Tables) With(r Route) Tables {
	return Tables{Rules: t.Rules, Routes: append(slices.Clone(t.Routes), r)}
}

// Lookup returns the route for packets of this host to addresses of p that no longer prefix covers; ok is false if there is none.
func (t Tables) Lookup(p netip.Prefix) (route Route, ok bool) {
	rules := slices.Clone(t.Rules)
	slices.SortStableFunc(rules, func(a, b Rule) int { return a.Priority - b.Priority })
	for _, rule := range rules {
		if rule.IPv6 != p.Addr().Is6() || rule.To.IsValid() && (rule.To.Bits() > p.Bits() || !rule.To.Contains(p.Addr())) {
			continue
		}
		if rule.Drops != "" {
			return Route{Dst: rule.to(), Kind: rule.Drops, Rule: rule.Priority}, true
		}
		r, found := t.best(rule.Table, p)
		if found && r.Kind != Throw && r.Dst.Bits() > rule.Suppress {
			return r, true
		}
	}
	return Route{}, false
}

// to returns the prefix that the rule is for.
func (r Rule) to() netip.Prefix {
	switch {
	case r.To.IsValid():
		return r.To
	case r.IPv6:
		return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
}

// best returns the route of a table with the longest prefix that contains p; of equal ones that with the lowest metric, and of
// those the one that was added first.
func (t Tables) best(table int, p netip.Prefix) (best Route, ok bool) {
	for _, r := range t.Routes {
		if r.Table != table || r.Dst.Bits() > p.Bits() || !r.Dst.Contains(p.Addr()) {
			continue
		}
		if !ok || r.Dst.Bits() > best.Dst.Bits() || r.Dst.Bits() == best.Dst.Bits() && r.Metric < best.Metric {
			best, ok = r, true
		}
	}
	return best, ok
}

// Conflict is a part of a range that the host does not route to the bridge.
type Conflict struct {
	Part  netip.Prefix
	Route Route // that it takes; the zero Route: none
}

// String describes the conflict.
func (c Conflict) String() string {
	if !c.Route.Dst.IsValid() {
		return fmt.Sprintf("%s has no route", c.Part)
	}
	if c.Route.Rule > 0 {
		return fmt.Sprintf("%s meets the host's %s", c.Part, c.Route)
	}
	return fmt.Sprintf("%s takes the host's route %s", c.Part, c.Route)
}

// loopback has local routes of IPv6 addresses on old kernels.
const loopback = "lo"

// Elsewhere returns the parts of a range that the host does not route to the bridge, each route once.
func Elsewhere(t Tables, rng netip.Prefix, bridge string) (conflicts []Conflict) {
	parts := []netip.Prefix{rng}
	addPart := func(p netip.Prefix) {
		if p.IsValid() && p.Bits() > rng.Bits() && rng.Contains(p.Addr()) {
			parts = append(parts, p)
		}
	}
	for _, r := range t.Routes {
		addPart(r.Dst)
	}
	for _, r := range t.Rules {
		addPart(r.To)
	}
	for _, part := range parts {
		r, found := t.Lookup(part)
		if found && (r.Link == bridge || r.Kind == Local && r.Link == loopback) {
			continue
		}
		if !slices.ContainsFunc(conflicts, func(c Conflict) bool { return c.Route == r }) {
			conflicts = append(conflicts, Conflict{part, r})
		}
	}
	return conflicts
}

// Hidden returns the addresses outside the overlay that the host would look for on the bridge: those of addrs, such as peers,
// and the gateways of other routes.
func Hidden(t Tables, rng netip.Prefix, bridge string, addrs []netip.Addr) (hidden []netip.Addr) {
	for _, r := range t.Routes {
		if r.Gateway.IsValid() && r.Link != bridge {
			addrs = append(addrs[:len(addrs):len(addrs)], r.Gateway)
		}
	}
	for _, a := range addrs {
		if !rng.Contains(a) || slices.Contains(hidden, a) {
			continue
		}
		if r, found := t.Lookup(netip.PrefixFrom(a, a.BitLen())); found && r.Link == bridge {
			hidden = append(hidden, a)
		}
	}
	return hidden
}
