package guard

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"
)

// Names of the sets and maps. A bound port is in setBound; its MAC and addresses are in the others.
const (
	setBound  = "bound"   // names of bound ports
	setOpen   = "open"    // names of open ports
	setNoIPv6 = "no-ipv6" // of those without an IPv6 address
	setMACs   = "macs"    // port . MAC
	setBind4  = "bind4"   // port . MAC . IPv4 address
	setBind6  = "bind6"   // port . MAC . IPv6 address
	// setSeparated are the names of ports in subnets.
	setSeparated = "separated"
	setOwn4      = "own4" // addresses of the bridge
	setOwn6      = "own6"
	mapMore      = "more"        // port : chain that accepts the sources in its prefixes
	mapTarget    = "targets"     // port : chain that accepts the targets of neighbor discovery
	mapFrom      = "subnet-from" // port : chain for what it sends out of its subnets
	mapTo        = "subnet-to"   // port : chain for what it gets from elsewhere

	chainOwn    = "own-targets" // drops neighbor discovery for addresses of the bridge
	chainUplink = "uplink"      // frames of other nodes
	chainPod    = "pod"         // frames of pods that are not bound
	chainShared = "shared"      // frames of all ports that are not bound
	chainPost   = "postrouting" // frames that leave
	chainRouted = "own-routed"  // those that the host sends, where ports are in subnets
	// broadcasts is a chain for frames of pods to a group, and the set of the ports of which it counts broadcasts.
	broadcasts = "broadcasts"
)

// sets are the sets and maps of the table, with their types.
var sets = []struct {
	name, elements string
	isMap          bool
}{
	{setBound, "ifname", false},
	{setOpen, "ifname", false},
	{setNoIPv6, "ifname", false},
	{setMACs, "ifname . ether_addr", false},
	{setBind4, "ifname . ether_addr . ipv4_addr", false},
	{setBind6, "ifname . ether_addr . ipv6_addr", false},
	{setSeparated, "ifname", false},
	{setOwn4, "ipv4_addr", false},
	{setOwn6, "ipv6_addr", false},
	{mapMore, "ifname : verdict", true},
	{mapTarget, "ifname : verdict", true},
	{mapFrom, "ifname : verdict", true},
	{mapTo, "ifname : verdict", true},
}

// target is the target address of a neighbor solicitation or advertisement (RFC 4861, 4.3 and 4.4). nft 1.0.6 has no name for it.
const target = "@th,64,128"

// priority of all chains: before br_netfilter, which is at 0 in prerouting.
const priority = "-300"

// chain is a chain with constant rules.
type chain struct {
	name  string
	hook  knftables.BaseChainHook // empty: only a target of jumps
	rules []string
}

// drop returns the jump to the chain that counts a reason and drops.
func drop(r Reason) string { return "goto " + dropChain(r) }

// dropPrefix begins the names of chains and counters of dropped frames: "arp" alone is a word of nft.
const dropPrefix = "drop-"

// dropChain returns the name of the chain for a reason, and of its counter.
func dropChain(r Reason) string { return dropPrefix + string(r) }

// quote returns the name of an interface, or a prefix of names with a *, in the syntax of nft.
func quote(name string) string { return `"` + name + `"` }

// constant returns the chains with rules that do not change with the pods.
//
// A frame with a VLAN tag has the tag beside its bytes: "ether type" is the type of the tag, and "meta protocol" the type behind it.
// nft adds one of both to rules about IP and ARP that have none, so rules that must see behind a tag have "meta protocol".
func constant(r Ruleset) []chain {
	chains := dropChains()
	if r.Broadcasts > 0 {
		chains = append(chains, limitChain(r.Broadcasts))
	}
	chains = append(chains, hooks(r)...)
	chains = append(chains, shared()...)
	chains = append(chains, bound()...)
	return append(chains, neighborDiscovery()...)
}

func dropChains() (chains []chain) {
	for _, reason := range Reasons() {
		chains = append(chains, chain{name: dropChain(reason), rules: []string{"counter name " + quote(dropChain(reason)), "drop"}})
	}
	return chains
}

// limitChain returns the chain that drops what a port sends beyond a number a second: broadcasts, as ARP requests are, and the groups of
// neighbor solicitations (RFC 4291, section 2.7.1). Other groups have no limit: they carry data.
func limitChain(second int) chain {
	limit := fmt.Sprintf("update @%s { iifname limit rate over %d/second burst %d packets } %s", broadcasts, second, 2*second,
		drop(ReasonBroadcast))
	return chain{name: broadcasts, rules: []string{
		"ether daddr ff:ff:ff:ff:ff:ff " + limit,
		"ether daddr & ff:ff:ff:00:00:00 == 33:33:ff:00:00:00 " + limit,
	}}
}

// ordinary matches IPv4 that is neither ICMP nor DHCP. The ports are a range because nft 1.0.6 merges two comparisons of neighboring
// fields to one: "th sport != 67 th dport != 68" is true unless both are equal.
const ordinary = "meta l4proto != 1 th sport != 67 th dport != 67-68"

// Rules against answers of DHCP servers. Clients accept them from any port, so the port of the client matters as well.
var (
	noDHCP4 = []string{"udp sport 67 " + drop(ReasonDHCP), "udp dport 68 " + drop(ReasonDHCP)}
	noDHCP6 = []string{"udp sport 547 " + drop(ReasonDHCP), "udp dport 546 " + drop(ReasonDHCP)}
)

// advertisements4 are the types of ICMP that configure routes: those of RFC 792 and RFC 1256.
var advertisements4 = fmt.Sprintf("icmp type vmap { redirect : %s , router-advertisement : %s }", drop(ReasonRedirect),
	drop(ReasonAdvertisement))

// hooks returns the chains that see frames first, and send them to others by port.
func hooks(r Ruleset) []chain {
	pre := chain{name: "prerouting", hook: knftables.PreroutingHook}
	in := chain{name: "input", hook: knftables.InputHook}
	if r.Broadcasts > 0 {
		pre.rules = append(pre.rules, "ether daddr & 01:00:00:00:00:00 == 01:00:00:00:00:00 iifname "+quote(r.PodPrefix+"*")+" jump "+broadcasts)
	}
	if len(r.Separated) > 0 {
		pre.rules = append(pre.rules, "iifname vmap @"+mapFrom)
	}
	for _, name := range r.Uplinks {
		pre.rules = append(pre.rules, "iifname "+quote(name)+" goto "+chainUplink)
		in.rules = append(in.rules, "iifname "+quote(name)+" goto host")
	}
	pre.rules = append(pre.rules,
		// Nearly all frames of bound ports: IPv4 with a known source that is neither ICMP nor DHCP.
		"ether type ip "+ordinary+" iifname . ether saddr . ip saddr @"+setBind4+" accept",
		"iifname @"+setBound+" goto bound",
	)
	for _, name := range append([]string{r.PodPrefix + "*"}, r.Others...) {
		to := chainShared
		if name == r.PodPrefix+"*" {
			to = chainPod
		}
		pre.rules = append(pre.rules, "iifname "+quote(name)+" goto "+to)
		in.rules = append(in.rules, "iifname "+quote(name)+" goto host")
	}
	deliver := chain{name: "deliver", rules: []string{
		"ether type { 8021q, 8021ad } " + drop(ReasonTag), // a pod accepts a tag of VLAN 0 as if there were none
		"ether type ip6 oifname @" + setNoIPv6 + " " + drop(ReasonIPv6),
	}}
	if !r.BridgeMAC.IsZero() {
		// The host itself may be a router and a DHCP server. No port sends with its MAC.
		deliver.rules = append(deliver.rules, "ether saddr "+r.BridgeMAC.String()+" accept")
	}
	deliver.rules = append(deliver.rules, "ether type vmap { ip : goto local4 , ip6 : goto local6 }")
	return []chain{pre, in, deliver}
}

// postrouting returns the rules of the chain that sees frames before they leave. It exists only where it is needed: each hook costs time
// for each frame.
func postrouting(r Ruleset) (rules []string) {
	if len(r.Separated) > 0 {
		if !r.BridgeMAC.IsZero() {
			rules = append(rules, "ether saddr "+r.BridgeMAC.String()+" jump "+chainRouted)
		}
		rules = append(append(rules, "oifname vmap @"+mapTo), outsideRules(r)...)
	}
	if r.needsDelivery() {
		rules = append(rules,
			"ether type ip "+ordinary+" accept", // nearly all frames
			"oifname @"+setBound+" goto deliver",
		)
	}
	return rules
}

// uplinkRules returns the rules for frames of other nodes.
func uplinkRules(r Ruleset) (rules []string) {
	if r.Strict {
		rules = []string{
			notOurs(r, ordinary) + " accept",
			"meta protocol vmap { ip : jump local4 , ip6 : jump local6 }",
		}
	}
	if len(r.Bound) > 0 && !r.needsDelivery() {
		rules = append(rules, "ether type { 8021q, 8021ad } "+drop(ReasonTag))
		if !r.Bound[0].hasIPv6() { // as all others
			rules = append(rules, "ether type ip6 "+drop(ReasonIPv6))
		}
	}
	return append(rules, "goto "+chainShared)
}

// podRules returns the rules for pods that are not bound.
func podRules(r Ruleset) []string {
	return []string{
		notOurs(r, ordinary) + " accept",
		"iifname @" + setOpen + " goto " + chainShared,
		"meta protocol vmap { ip : jump local4 , ip6 : jump local6 }",
		"goto " + chainShared,
	}
}

// sharedRules returns the rules for ports that are not bound.
func sharedRules(r Ruleset) []string {
	rules := []string{notOurs(r) + " accept"}
	if !r.BridgeMAC.IsZero() {
		rules = append(rules, "ether saddr "+r.BridgeMAC.String()+" "+drop(ReasonMAC))
	}
	return append(rules,
		"meta protocol vmap { ip : goto shared4 , ip6 : goto shared6 , arp : goto shared-arp }",
		// Behind a tag of VLAN 0 the host and pods look for another one.
		"meta protocol { 8021q, 8021ad } @ll,116,12 0 "+drop(ReasonTag),
	)
}

// notOurs matches nearly all frames in the least time: IPv4 without a tag that is not in the name of the bridge.
func notOurs(r Ruleset, more ...string) string {
	parts := append([]string{"ether type ip"}, more...)
	if !r.BridgeMAC.IsZero() {
		parts = append(parts, "ether saddr != "+r.BridgeMAC.String())
	}
	own := slices.DeleteFunc(slices.Clone(r.BridgeAddrs), netip.Addr.Is6)
	if len(own) == 1 {
		parts = append(parts, "ip saddr != "+own[0].String())
	} else {
		parts = append(parts, "ip saddr != @"+setOwn4)
	}
	return strings.Join(parts, " ")
}

// shared returns the chains of ports that are not bound, and of what the host takes from any port.
func shared() []chain {
	return []chain{
		{name: chainUplink}, {name: chainPod}, {name: chainShared}, // their rules name the bridge's addresses
		{name: "local4", rules: behindTag("ip", append([]string{advertisements4}, noDHCP4...))},
		{name: "local6", rules: behindTag("ip6", append([]string{
			"icmpv6 type nd-router-advert " + drop(ReasonAdvertisement),
			"icmpv6 type nd-redirect " + drop(ReasonRedirect),
		}, noDHCP6...))},
		{name: chainOwn}, // its rules are those of the bridge's addresses
		{name: "shared4", rules: []string{"meta protocol ip ip saddr @" + setOwn4 + " " + drop(ReasonAddress)}},
		{name: "shared-arp", rules: []string{"meta protocol arp arp saddr ip @" + setOwn4 + " " + drop(ReasonARP)}},
		{name: "shared6", rules: []string{
			"meta protocol ip6 ip6 saddr @" + setOwn6 + " " + drop(ReasonAddress),
			"meta protocol ip6 icmpv6 type nd-neighbor-advert goto " + chainOwn,
			"meta protocol ip6 icmpv6 type nd-neighbor-solicit ip6 saddr :: goto " + chainOwn,
		}},
		{name: "host", rules: []string{
			"ether daddr & ff:ff:ff:ff:ff:f0 == 01:80:c2:00:00:00 " + drop(ReasonGroup),
			"meta protocol ip6 icmpv6 type nd-router-advert " + drop(ReasonAdvertisement),
			"meta protocol ip6 icmpv6 type nd-redirect " + drop(ReasonRedirect),
			"meta protocol ip " + advertisements4,
			"meta protocol { 8021q, 8021ad } @ll,116,12 0 " + drop(ReasonTag),
		}},
	}
}

// behindTag makes rules look at a protocol that may be behind a tag.
func behindTag(protocol string, rules []string) []string {
	out := make([]string, len(rules))
	for i, rule := range rules {
		out[i] = "meta protocol " + protocol + " " + rule
	}
	return out
}

// bound returns the chains of bound ports: a frame is accepted only by a rule that knows its MAC and its address. Chains end with a
// verdict: without one, a frame with a further address would return to chain unknown.
func bound() []chain {
	return []chain{
		{name: "udp4", rules: append(slices.Clone(noDHCP4), "accept")},
		{name: "icmp4", rules: []string{advertisements4, "accept"}},
		{name: "known4", rules: []string{"meta l4proto vmap { 1 : goto icmp4 , 17 : goto udp4 }", "accept"}},
		{name: "udp6", rules: append(slices.Clone(noDHCP6),
			"udp dport != 546 accept",
			"frag frag-off != 0 accept", // the first fragment was checked
			drop(ReasonMalformed),       // the first fragment has no port (RFC 7112)
		)},
		{name: "known6", rules: []string{
			"meta l4proto vmap { 58 : goto icmp6 , 17 : goto udp6 }",
			"meta l4proto != 255 accept", // false for headers that the kernel does not understand
			drop(ReasonMalformed),
		}},
		{name: "unknown", rules: []string{
			"iifname . ether saddr != @" + setMACs + " " + drop(ReasonMAC),
			"ether type ip ip saddr @" + setOwn4 + " " + drop(ReasonAddress), // a prefix may contain them
			"ether type ip6 ip6 saddr @" + setOwn6 + " " + drop(ReasonAddress),
			"iifname vmap @" + mapMore,
			drop(ReasonAddress),
		}},
		{name: "bound4", rules: []string{
			"iifname . ether saddr . ip saddr @" + setBind4 + " goto known4",
			"goto unknown",
		}},
		{name: "bound6", rules: []string{
			"iifname . ether saddr . ip6 saddr @" + setBind6 + " goto known6",
			"iifname @" + setNoIPv6 + " " + drop(ReasonIPv6),
			"ip6 saddr :: goto unspecified6",
			"goto unknown",
		}},
		{name: "bound-arp", rules: []string{
			"arp htype != 1 " + drop(ReasonARP),
			"arp ptype != ip " + drop(ReasonARP),
			"arp hlen != 6 " + drop(ReasonARP),
			"arp plen != 4 " + drop(ReasonARP),
			"arp operation != { request, reply } " + drop(ReasonARP),
			"iifname . ether saddr != @" + setMACs + " " + drop(ReasonMAC),
			"iifname . arp saddr ether != @" + setMACs + " " + drop(ReasonARP),
			"iifname . arp saddr ether . arp saddr ip @" + setBind4 + " accept",
			// A probe for an address of its own (RFC 5227).
			"arp saddr ip 0.0.0.0 iifname . arp saddr ether . arp daddr ip @" + setBind4 + " accept",
			"arp saddr ip @" + setOwn4 + " " + drop(ReasonARP), // a prefix may contain them
			"iifname vmap @" + mapMore,
			drop(ReasonARP),
		}},
		{name: "bound", rules: []string{
			"ether type vmap { ip : goto bound4 , ip6 : goto bound6 , arp : goto bound-arp }",
			"ether type { 8021q, 8021ad } " + drop(ReasonTag),
			drop(ReasonEthertype),
		}},
	}
}

// neighborDiscovery returns the chains for ICMPv6 of bound ports.
func neighborDiscovery() []chain {
	ownTarget := "iifname vmap @" + mapTarget
	return []chain{
		{name: "nd-target", rules: []string{"jump " + chainOwn, ownTarget, drop(ReasonND)}},
		{name: "fragment6", rules: []string{
			"frag frag-off != 0 accept", // the first fragment was checked
			drop(ReasonND),              // a first fragment of neighbor discovery (RFC 6980), or one without its type (RFC 7112)
		}},
		{name: "icmp6", rules: []string{
			"icmpv6 type { echo-request, echo-reply } accept",
			"exthdr frag exists goto fragment6",
			fmt.Sprintf("icmpv6 type vmap { nd-neighbor-advert : goto nd-target , nd-router-advert : %s , nd-redirect : %s }",
				drop(ReasonAdvertisement), drop(ReasonRedirect)),
			"accept",
		}},
		// Without a source address: duplicate address detection, and what goes with it (RFC 4861, 4862, 3590).
		{name: "unspecified6", rules: []string{
			"iifname . ether saddr != @" + setMACs + " " + drop(ReasonMAC),
			"exthdr frag exists " + drop(ReasonND),
			"icmpv6 type vmap { nd-neighbor-solicit : goto nd-target , " + strings.Join([]string{
				"nd-router-solicit : accept", "mld-listener-report : accept", "mld-listener-done : accept", "mld2-listener-report : accept",
			}, ", ") + " }",
			drop(ReasonAddress),
		}},
	}
}
