package direct

import (
	"context"
	"fmt"
	"net/netip"

	"sigs.k8s.io/knftables"

	"weft/internal/ether"
	"weft/internal/peer"
)

// Names in the tables. Those of sets and maps end with the family.
const (
	setOwn   = "own"    // what this node gives out to its pods
	mapTo    = "to"     // the addresses of peers that are carried : counter
	mapFrom  = "from"   // the addresses of peers : counter
	setAll   = "range"  // the ranges of the overlay
	setHost  = "hosts"  // the addresses of peers themselves
	setProbe = "probes" // the sources of their probes

	toPrefix, fromPrefix = "to-", "from-" // of the names of counters, before the ID of a peer

	// Counters of packets that were dropped.
	dropUnknown = "unknown" // from the addresses of pods, and of no peer
	dropHost    = "host"    // to an address of the bridge
)

// FilterReasons returns why the rules drop packets, sorted.
func FilterReasons() []string { return []string{dropHost, dropUnknown} }

// Priorities of the chains. What pods may not send is dropped before (package guard, -300), and br_netfilter comes after (0). The host's
// own filters come before its packets are logged or counted as those of peers.
const (
	beforeBridgeFilter knftables.BaseChainPriority = "-250"
	afterFilters       knftables.BaseChainPriority = "300"
	beforeFilters      knftables.BaseChainPriority = "-300"
)

// configuration are rules against what configures hosts, as package guard has them for frames of other nodes: redirects, and answers of
// DHCP servers.
var configuration = []string{
	"meta l4proto != { 1, 17, 58 } accept",
	"udp sport { 67, 547 } drop", "udp dport { 68, 546 } drop", "icmp type redirect drop", "icmpv6 type nd-redirect drop",
}

// copied is how many bytes of a probe are logged: all headers and the probe.
const copied = 40 + 20 + 60

// rules are two tables of nftables. That of the bridge family sends the frames for peers up to the host (here for IPv4):
//
//	table bridge weft-weftp6783d {
//	    set own4 { type ipv4_addr; flags interval; elements = { 10.32.0.0/14 } }
//	    set hosts4 { type ipv4_addr; elements = { 10.36.0.1 } }
//	    map to4 { type ipv4_addr : counter; flags interval; elements = { 10.36.0.0/14 : to-… } }
//	    chain prerouting {
//	        type filter hook prerouting priority -250
//	        iifname "weft*" accept
//	        ether daddr & 01:00:00:00:00:00 == 0 ether type ip ip saddr @own4 ip ttl 3-254 ip daddr != @hosts4
//	            counter name ip daddr map @to4 meta pkttype set host ether daddr set 06:57:…
//	    }
//	}
//
// Packets that must stay on one link have the lowest or the highest TTL (RFC 5082), and are left alone; so are those that would not survive
// the two hosts, and those from addresses that belong to another node: peers accept no such packets. The other table has what comes from
// peers:
//
//	table inet weft-weftp6783d {
//	    chain forward {
//	        type filter hook forward priority 300
//	        oifname != "weave" accept
//	        iifname "weave" accept
//	        iifname "eth0" ip daddr 10.32.0.9 ip saddr @probes4 log group 6784 snaplen 120 queue-threshold 1
//	        ip daddr 10.32.0.9 drop
//	        jump from
//	    }
//	    chain input {
//	        type filter hook input priority -300
//	        iifname "eth0" ip saddr @range4 ip daddr @range4 counter name host drop
//	    }
//	    chain peer { udp sport 67 drop; … }
//	    chain from {
//	        iifname "eth0" counter name ip saddr map @from4 goto peer
//	        ip saddr @range4 counter name unknown drop
//	    }
//	}
type rules struct {
	bridge, inet knftables.Interface
	cfg          Config
}

// ruleset is what the rules are to be.
type ruleset struct {
	mac     ether.Addr // of the bridge
	uplink  string     // the name of the underlay interface
	own     Node
	targets []target // sorted
	carried map[peer.ID]bool
	open    bool // packets from addresses of no peer pass: there may be peers that are not known yet
}

// openRules returns the rules in the network namespace of the calling thread, and changes nothing. The error wraps ErrNoRules.
func openRules(cfg Config) (*rules, error) {
	bridge, err := knftables.New(knftables.BridgeFamily, tableName(cfg.Table))
	if err != nil {
		return nil, fmt.Errorf("direct: %w: install the nftables package: %w", ErrNoRules, err)
	}
	inet, err := knftables.New(knftables.InetFamily, tableName(cfg.Table))
	if err != nil {
		return nil, fmt.Errorf("direct: %w: install the nftables package: %w", ErrNoRules, err)
	}
	return &rules{bridge: bridge, inet: inet, cfg: cfg}, nil
}

// apply makes both tables those of r. The counters of peers that were there before keep their values. The table that receives comes first:
// nothing is sent that this node would not accept from its peers.
func (r *rules) apply(ctx context.Context, s ruleset, gone []peer.ID) error {
	tx := r.inet.NewTransaction()
	r.addInet(tx, s, gone)
	if err := r.inet.Run(ctx, tx); err != nil {
		return fmt.Errorf("direct: %w: set the rules: %w", ErrNoRules, err)
	}
	tx = r.bridge.NewTransaction()
	r.addBridge(tx, s, gone)
	if err := r.bridge.Run(ctx, tx); err != nil {
		return fmt.Errorf("direct: %w: set the rules of the bridge: %w", ErrNoRules, err)
	}
	return nil
}

// carry begins or ends to send the frames for a peer up to the host.
func (r *rules) carry(ctx context.Context, t target, on bool) error {
	tx := r.bridge.NewTransaction()
	for _, e := range elements(mapTo, t, toPrefix) {
		if on {
			tx.Add(e)
		} else {
			tx.Delete(e)
		}
	}
	if err := r.bridge.Run(ctx, tx); err != nil {
		return fmt.Errorf("direct: %w: set the addresses of a peer: %w", ErrNoRules, err)
	}
	return nil
}

// remove removes both tables, if they are there.
func (r *rules) remove(ctx context.Context) error {
	for _, nft := range []knftables.Interface{r.bridge, r.inet} {
		tx := nft.NewTransaction()
		tx.Add(&knftables.Table{}) // without it the deletion fails if there is no table
		tx.Delete(&knftables.Table{})
		if err := nft.Run(ctx, tx); err != nil {
			return fmt.Errorf("direct: remove the rules: %w", err)
		}
	}
	return nil
}

// addBridge adds the table of the bridge family.
func (r *rules) addBridge(tx *knftables.Transaction, s ruleset, gone []peer.ID) {
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: frames that are routed to peers")})
	var to, hosts []*knftables.Element
	for _, t := range s.targets {
		tx.Add(&knftables.Counter{Name: toPrefix + t.ID.String()})
		if s.carried[t.ID] {
			to = append(to, elements(mapTo, t, toPrefix)...)
		}
		for _, a := range t.node.Hosts {
			hosts = append(hosts, &knftables.Element{Set: setHost + familyOf(a).suffix(), Key: []string{a.String()}})
		}
	}
	addSets(tx, setOwn, prefixes(setOwn, s.own.Share))
	addSets(tx, setHost, hosts)
	addMaps(tx, mapTo, to)
	var lines []string
	for _, name := range r.cfg.Uplinks {
		lines = append(lines, "iifname "+quote(name)+" accept")
	}
	for _, f := range nftFamilies {
		lines = append(lines, knftables.Concat(
			"ether daddr & 01:00:00:00:00:00 == 0 ether type", f.word, f.word, "saddr @"+setOwn+f.suffix, f.word, f.ttl, "3-254",
			f.word, "daddr != @"+setHost+f.suffix,
			"counter name", f.word, "daddr map @"+mapTo+f.suffix, "meta pkttype set host ether daddr set", s.mac.String(),
		))
	}
	addChain(tx, "prerouting", knftables.PreroutingHook, beforeBridgeFilter, lines...)
	removeCounters(tx, toPrefix, gone)
}

// addInet adds the table of the family inet.
func (r *rules) addInet(tx *knftables.Transaction, s ruleset, gone []peer.ID) {
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: packets that peers route here")})
	tx.Add(&knftables.Counter{Name: dropUnknown})
	tx.Add(&knftables.Counter{Name: dropHost})
	var from, probes []*knftables.Element
	for _, t := range s.targets {
		tx.Add(&knftables.Counter{Name: fromPrefix + t.ID.String()})
		from = append(from, elements(mapFrom, t, fromPrefix)...)
		for _, f := range t.families() {
			a := t.node.probe(f)
			probes = append(probes, &knftables.Element{Set: setProbe + familyOf(a).suffix(), Key: []string{a.String()}})
		}
	}
	addSets(tx, setProbe, probes)
	addSets(tx, setAll, prefixes(setAll, r.cfg.Ranges))
	addMaps(tx, mapFrom, from)
	forward := []string{`oifname != ` + quote(r.cfg.Bridge) + ` accept`, `iifname ` + quote(r.cfg.Bridge) + ` accept`}
	for _, a := range s.own.Probes {
		f := nftFamilies[familyOf(a)]
		forward = append(forward,
			knftables.Concat("iifname", quote(s.uplink), f.word, "daddr", a.String(), f.word, "saddr @"+setProbe+f.suffix,
				"log group", int(r.cfg.Group), "snaplen", copied, "queue-threshold 1"),
			knftables.Concat(f.word, "daddr", a.String(), "drop"))
	}
	var sources, input []string
	for _, f := range nftFamilies {
		sources = append(sources,
			knftables.Concat("iifname", quote(s.uplink), "counter name", f.word, "saddr map @"+mapFrom+f.suffix, "goto peer"))
		if !s.open && !r.cfg.Foreign {
			sources = append(sources, knftables.Concat(f.word, "saddr @"+setAll+f.suffix, "counter name", dropUnknown, "drop"))
		}
		input = append(input, knftables.Concat("iifname", quote(s.uplink), f.word, "saddr @"+setAll+f.suffix, f.word, "daddr @"+setAll+f.suffix,
			"counter name", dropHost, "drop"))
	}
	addChain(tx, "peer", "", "", configuration...)
	addChain(tx, "from", "", "", sources...)
	addChain(tx, "forward", knftables.ForwardHook, afterFilters, append(forward, "jump from")...)
	// Nothing is routed to hosts, so that neither nodes nor their pods reach closed ports of this one. A peer may not know of a new address
	// of the bridge for some seconds.
	addChain(tx, "input", knftables.InputHook, beforeFilters, input...)
	removeCounters(tx, fromPrefix, gone)
}

// removeCounters removes the counters of peers, if they are there.
func removeCounters(tx *knftables.Transaction, prefix string, gone []peer.ID) {
	for _, id := range gone {
		tx.Add(&knftables.Counter{Name: prefix + id.String()}) // without it the transaction fails if there is none
		tx.Delete(&knftables.Counter{Name: prefix + id.String()})
	}
}

// elements returns the elements of a map for the share of a peer.
func elements(name string, t target, counter string) (list []*knftables.Element) {
	for _, p := range t.share() {
		list = append(list, &knftables.Element{
			Map: name + familyOf(p.Addr()).suffix(), Key: []string{p.String()}, Value: []string{quote(counter + t.ID.String())},
		})
	}
	return list
}

// prefixes returns prefixes as elements of the sets of a name.
func prefixes(name string, list []netip.Prefix) (elements []*knftables.Element) {
	for _, p := range list {
		elements = append(elements, &knftables.Element{Set: name + familyOf(p.Addr()).suffix(), Key: []string{p.String()}})
	}
	return elements
}

// intervals lets a set or map have prefixes.
var intervals = []knftables.SetFlag{knftables.IntervalFlag}

// addSets makes elements those of the sets of a name, one for each family.
func addSets(tx *knftables.Transaction, name string, elements []*knftables.Element) {
	for _, f := range nftFamilies {
		tx.Add(&knftables.Set{Name: name + f.suffix, Type: f.key, Flags: intervals})
		tx.Flush(&knftables.Set{Name: name + f.suffix})
	}
	addAll(tx, elements)
}

// addMaps makes elements those of the maps of a name to counters, one for each family.
func addMaps(tx *knftables.Transaction, name string, elements []*knftables.Element) {
	for _, f := range nftFamilies {
		tx.Add(&knftables.Map{Name: name + f.suffix, Type: f.key + " : counter", Flags: intervals})
		tx.Flush(&knftables.Map{Name: name + f.suffix})
	}
	addAll(tx, elements)
}

func addAll(tx *knftables.Transaction, elements []*knftables.Element) {
	for _, e := range elements {
		tx.Add(e)
	}
}

// addChain makes these rules the only ones of a chain, on a hook unless that is empty.
func addChain(tx *knftables.Transaction, name string, hook knftables.BaseChainHook, priority knftables.BaseChainPriority, lines ...string) {
	c := &knftables.Chain{Name: name}
	if hook != "" {
		c.Type, c.Hook, c.Priority = knftables.PtrTo(knftables.FilterType), &hook, &priority
	}
	tx.Add(c)
	tx.Flush(&knftables.Chain{Name: name})
	for _, line := range lines {
		tx.Add(&knftables.Rule{Chain: name, Rule: line})
	}
}

// quote returns a name in the syntax of nft.
func quote(name string) string { return `"` + name + `"` }

// nftFamilies are the families in the words of nft: of headers, of the number of hops, of the type of addresses, and at the end of the
// names of sets.
var nftFamilies = [...]struct{ word, ttl, key, suffix string }{
	ip4: {"ip", "ttl", "ipv4_addr", "4"},
	ip6: {"ip6", "hoplimit", "ipv6_addr", "6"},
}

// suffix is the end of the names of sets with addresses of a family.
func (f family) suffix() string { return nftFamilies[f].suffix }
