package guard

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// Subnets of the overlay share one Ethernet. A port that is in some of them sends to addresses in these alone, and receives from
// addresses in these alone. Its host is exempt, but not what the host forwards.

// Multicast and broadcast addresses, which a port may send to: the rules for receivers look at the source.
var groups4, groups6 = []string{"224.0.0.0/4", "255.255.255.255"}, "ff00::/8"

// neighbors are the messages by which IPv6 finds its neighbors; their addresses may be link-local.
const neighbors = "icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert }"

// separate adds a port that is in subnets. Ports of the same subnets share their chains.
func (t *table) separate(r Ruleset, p Port) {
	if len(p.Subnets) == 0 {
		return
	}
	four, six := families(p.Subnets)
	name := subnetsName(p.Subnets)
	from := fromRules(r, p, four, six)
	to := toRules(r, four, six)
	t.elements[setSeparated][quote(p.Link)] = ""
	t.jumpTo(mapFrom, p.Link, name+map[bool]string{true: "-host"}[p.HostOnly], append(from, drop(ReasonSubnet)))
	t.jumpTo(mapTo, p.Link, name, append(to, drop(ReasonSubnet)))
}

// jumpTo adds a port to a map, with a jump to a chain that other ports may share.
func (t *table) jumpTo(m, link, name string, rules []string) {
	chain := m + "-" + name
	t.chains[chain] = rules
	t.elements[m][quote(link)] = "jump " + chain
}

// fromRules are the rules for what a port in subnets sends: from addresses in these, to addresses in these and to the host.
func fromRules(r Ruleset, p Port, four, six []string) (rules []string) {
	if len(four) > 0 {
		rules = append(rules, "ether type ip ip saddr != "+set(four, "0.0.0.0")+" "+drop(ReasonSubnet))
	}
	if len(six) > 0 {
		rules = append(rules, "ether type ip6 ip6 saddr != "+set(six, "::", "fe80::/10")+" "+drop(ReasonSubnet))
	}
	if !r.BridgeMAC.IsZero() {
		host := "ether daddr " + r.BridgeMAC.String()
		if p.HostOnly {
			rules = append(rules, host+" ether type ip ip daddr @"+setOwn4+" return", host+" ether type ip6 ip6 daddr @"+setOwn6+" return")
		} else {
			rules = append(rules, host+" return")
		}
	}
	if len(four) > 0 {
		rules = append(rules,
			"ether type ip ip daddr "+set(four, groups4...)+" return",
			"ether type arp arp daddr ip "+set(four)+" return",
			"ether type arp arp daddr ip @"+setOwn4+" return",
		)
	}
	if len(six) > 0 {
		rules = append(rules,
			"ether type ip6 ip6 daddr "+set(six, groups6)+" return",
			"ether type ip6 ip6 daddr fe80::/10 "+neighbors+" return",
		)
	}
	return rules
}

// set returns an anonymous set of nft.
func set(elements []string, more ...string) string {
	return "{ " + strings.Join(slices.Concat(elements, more), ", ") + " }"
}

// toRules are the rules for what a port in subnets gets.
func toRules(r Ruleset, four, six []string) (rules []string) {
	if !r.BridgeMAC.IsZero() {
		rules = append(rules, "ether saddr "+r.BridgeMAC.String()+" return")
	}
	if len(four) > 0 {
		rules = append(rules,
			"ether type ip ip saddr "+set(four)+" return",
			"ether type arp arp saddr ip "+set(four, "0.0.0.0")+" return",
		)
	}
	if len(six) > 0 {
		rules = append(rules,
			"ether type ip6 ip6 saddr "+set(six)+" return",
			"ether type ip6 ip6 saddr { ::, fe80::/10 } "+neighbors+" return",
		)
	}
	return rules
}

// allSubnets returns the subnets of all ports, in order.
func (r Ruleset) allSubnets() (all []netip.Prefix) {
	for _, p := range r.Separated {
		all = append(all, p.Subnets...)
	}
	slices.SortFunc(all, netip.Prefix.Compare)
	return slices.Compact(all)
}

// outsideRules are the rules for frames to pods that are in no subnet: nothing from addresses in subnets, groups included.
func outsideRules(r Ruleset) (rules []string) {
	four, six := families(r.allSubnets())
	for ip, subnets := range map[string][]string{"ip": four, "ip6": six} {
		if len(subnets) > 0 {
			rules = append(rules, fmt.Sprintf("oifname %s oifname != @%s ether type %s %s saddr %s %s", quote(r.PodPrefix+"*"), setSeparated,
				ip, ip, set(subnets), drop(ReasonSubnet)))
		}
	}
	slices.Sort(rules)
	return rules
}

// routedRules are the rules for frames of the host to its pods: what it forwards from a subnet to other pods. Its own addresses may be in
// a subnet and are exempt.
func routedRules(r Ruleset) (rules []string) {
	for _, s := range r.allSubnets() {
		ip, own := protocolOf(s)
		rules = append(rules, fmt.Sprintf("ether type %s %s saddr %s %s saddr != @%s %s daddr != %s %s", ip, ip, s, ip, own, ip, s,
			drop(ReasonSubnet)))
	}
	return rules
}

// forwardRules are the rules for what the host forwards into subnets: answers, and connections that were sent there on purpose (DNAT, as
// of a published port). The table is in the family inet, and may see what is bridged as well (br_netfilter).
func forwardRules(r Ruleset) (rules []string) {
	all := r.allSubnets()
	if len(all) == 0 {
		return nil
	}
	rules = []string{"oifname != " + quote(r.Bridge) + " accept", "ct state { established, related } accept", "ct status dnat accept"}
	for _, s := range all {
		ip, _ := protocolOf(s)
		rules = append(rules, fmt.Sprintf("%s daddr %s %s saddr != %s %s", ip, s, ip, s, drop(ReasonSubnet)))
	}
	return rules
}

// protocolOf returns the word of nft for the family of a subnet, and the set of the bridge's addresses in it.
func protocolOf(s netip.Prefix) (ip, own string) {
	if s.Addr().Is6() {
		return "ip6", setOwn6
	}
	return "ip", setOwn4
}

// families returns the subnets of both families, in order, without those that are parts of others: nft refuses these in one set.
func families(subnets []netip.Prefix) (four, six []string) {
	for i, s := range subnets {
		inOther := func(o netip.Prefix) bool { return o.Bits() <= s.Bits() && o.Contains(s.Addr()) }
		if slices.ContainsFunc(subnets[:i], inOther) ||
			slices.ContainsFunc(subnets[i+1:], func(o netip.Prefix) bool { return o != s && inOther(o) }) {
			continue
		}
		if s.Addr().Is4() {
			four = append(four, s.String())
		} else {
			six = append(six, s.String())
		}
	}
	slices.Sort(four)
	slices.Sort(six)
	return four, six
}

// subnetsName returns a name for chains of ports in subnets. nft allows letters, digits, dots, hyphens and underscores.
func subnetsName(subnets []netip.Prefix) string {
	four, six := families(subnets)
	return strings.NewReplacer("/", "-", ":", "_").Replace(strings.Join(append(four, six...), "-"))
}
