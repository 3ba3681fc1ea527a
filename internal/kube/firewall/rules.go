package firewall

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

var directions = [...]policy.Direction{policy.Ingress, policy.Egress}

// family is what differs between IPv4 and IPv6.
type family struct {
	is4          bool
	word, suffix string // in rules; of names
	addr         string
}

var families = [...]family{
	{is4: true, word: "ip", suffix: "4", addr: "ipv4_addr"},
	{word: "ip6", suffix: "6", addr: "ipv6_addr"},
}

// setOf returns the name of a set of package policy for one family.
func (f family) setOf(name string) string { return name + "v" + f.suffix }

// self returns the name of the set of pods that may talk to themselves.
func (f family) self() string { return "self" + f.suffix }

// podsOf returns the name of the map from pods to chains.
func (f family) podsOf(d policy.Direction) string { return d.String() + f.suffix }

func (f family) of(ip netip.Addr) bool { return ip.Is4() == f.is4 }

// counterOf and dropOf return the names of the counter and the chain for what a direction forbids.
func counterOf(d policy.Direction) string { return "dropped-" + d.String() }
func dropOf(d policy.Direction) string    { return "drop-" + d.String() }

// neighbours are the types of ICMPv6 without which no address is found: they are never tracked, and so never a reply.
const neighbours = "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert, nd-redirect, " +
	"mld-listener-query, mld-listener-report, mld-listener-done, mld2-listener-report } accept"

// whole replaces the table by one that holds r.
func (n *NFT) whole(r *policy.Ruleset) *knftables.Transaction {
	tx := n.nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: network policies; written by weft-kube, changes are undone")})
	for _, d := range directions {
		tx.Add(&knftables.Counter{Name: counterOf(d)})
		tx.Add(&knftables.Chain{Name: dropOf(d)})
		tx.Add(&knftables.Rule{Chain: dropOf(d), Rule: knftables.Concat("counter name", `"`+counterOf(d)+`"`)})
		tx.Add(&knftables.Rule{Chain: dropOf(d), Rule: fmt.Sprintf(`limit rate 10/second log prefix "%s" group %d snaplen 128`, d, LogGroup)})
		tx.Add(&knftables.Rule{Chain: dropOf(d), Rule: "drop"})
		for _, f := range families {
			tx.Add(&knftables.Map{Name: f.podsOf(d), Type: f.addr + " : verdict"})
		}
	}
	for _, f := range families {
		tx.Add(&knftables.Set{Name: f.self(), Type: f.addr + " . " + f.addr})
	}
	tx.Add(&knftables.Chain{
		Name: "forward", Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.ForwardHook),
		Priority: knftables.PtrTo(knftables.FilterPriority),
	})
	for _, rule := range []string{"ct direction reply accept", "ct state related accept", neighbours} {
		tx.Add(&knftables.Rule{Chain: "forward", Rule: rule})
	}
	for _, f := range families {
		for _, rule := range []string{
			knftables.Concat(f.word, "saddr .", f.word, "daddr @", f.self(), "accept"),
			knftables.Concat(f.word, "saddr vmap @", f.podsOf(policy.Egress)),
			knftables.Concat(f.word, "daddr vmap @", f.podsOf(policy.Ingress)),
		} {
			tx.Add(&knftables.Rule{Chain: "forward", Rule: rule})
		}
	}
	n.addChange(tx, &policy.Ruleset{}, r)
	return tx
}

// change makes a table that holds old hold r.
func (n *NFT) change(old, r *policy.Ruleset) *knftables.Transaction {
	tx := n.nft.NewTransaction()
	n.addChange(tx, old, r)
	return tx
}

// addChange adds what is new, leads pods to it, and only then removes what nothing leads to any more.
func (n *NFT) addChange(tx *knftables.Transaction, old, r *policy.Ruleset) {
	changeSets(tx, old.Sets, r.Sets)
	added := missing(r.Chains, old.Chains)
	for _, name := range added {
		tx.Add(&knftables.Chain{Name: name})
	}
	for _, name := range added {
		for _, rule := range rulesOf(r.Chains[name]) {
			tx.Add(&knftables.Rule{Chain: name, Rule: rule})
		}
	}
	changePods(tx, old.Pods, r.Pods)
	removed := missing(old.Chains, r.Chains)
	for _, name := range removed {
		tx.Flush(&knftables.Chain{Name: name}) // they may lead to each other
	}
	for _, name := range removed {
		tx.Delete(&knftables.Chain{Name: name})
	}
	for _, name := range missing(old.Sets, r.Sets) {
		for _, f := range families {
			tx.Delete(&knftables.Set{Name: f.setOf(name)})
		}
	}
}

// missing returns the keys of a that b has not, sorted.
func missing[V any](a, b map[string]V) (out []string) {
	for _, k := range slices.Sorted(maps.Keys(a)) {
		if _, ok := b[k]; !ok {
			out = append(out, k)
		}
	}
	return out
}

// changeSets adds sets, and changes the elements of those that are there.
func changeSets(tx *knftables.Transaction, old, sets map[string]policy.Set) {
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		set := sets[name]
		before, known := old[name]
		for _, f := range families {
			if !known {
				s := &knftables.Set{Name: f.setOf(name), Type: f.addr}
				if set.Blocks {
					s.Flags = []knftables.SetFlag{knftables.IntervalFlag}
				}
				tx.Add(s)
			}
		}
		gone, come := differences(before.Prefixes, set.Prefixes)
		for _, p := range gone {
			tx.Delete(elementOf(name, p))
		}
		for _, p := range come {
			tx.Add(elementOf(name, p))
		}
	}
}

func elementOf(set string, p netip.Prefix) *knftables.Element {
	for _, f := range families {
		if f.of(p.Addr()) {
			return &knftables.Element{Set: f.setOf(set), Key: []string{keyOf(p)}}
		}
	}
	panic("firewall: an address of no family")
}

func keyOf(p netip.Prefix) string {
	if p.IsSingleIP() {
		return p.Addr().String()
	}
	return p.String()
}

// differences walks two sorted lists and returns what only one of them has.
func differences(a, b []netip.Prefix) (onlyA, onlyB []netip.Prefix) {
	for len(a) > 0 && len(b) > 0 {
		switch c := a[0].Compare(b[0]); {
		case c == 0:
			a, b = a[1:], b[1:]
		case c < 0:
			onlyA, a = append(onlyA, a[0]), a[1:]
		default:
			onlyB, b = append(onlyB, b[0]), b[1:]
		}
	}
	return append(onlyA, a...), append(onlyB, b...)
}

// changePods leads pods to their chains.
func changePods(tx *knftables.Transaction, old, pods map[netip.Addr]policy.PodChains) {
	both := map[netip.Addr]bool{}
	for ip := range old {
		both[ip] = true
	}
	for ip := range pods {
		both[ip] = true
	}
	for _, ip := range slices.SortedFunc(maps.Keys(both), netip.Addr.Compare) {
		before, was := old[ip]
		after, is := pods[ip]
		for _, f := range families {
			if !f.of(ip) {
				continue
			}
			key := []string{ip.String()}
			moveElement(tx, f.podsOf(policy.Ingress), key, before.Ingress, after.Ingress)
			moveElement(tx, f.podsOf(policy.Egress), key, before.Egress, after.Egress)
			self := &knftables.Element{Set: f.self(), Key: []string{ip.String(), ip.String()}}
			if was && !is {
				tx.Delete(self)
			} else if is && !was {
				tx.Add(self)
			}
		}
	}
}

// moveElement has a pod lead to another chain in a map; empty is none.
func moveElement(tx *knftables.Transaction, m string, key []string, before, after string) {
	if before == after {
		return
	}
	if before != "" {
		tx.Delete(&knftables.Element{Map: m, Key: key})
	}
	if after != "" {
		tx.Add(&knftables.Element{Map: m, Key: key, Value: []string{"jump " + after}})
	}
}

// rulesOf returns the rules of a chain as nft reads them.
func rulesOf(c policy.Chain) (rules []string) {
	if len(c.Ports) > 0 {
		jumps := make([]string, len(c.Ports))
		for i, p := range c.Ports {
			jumps[i] = fmt.Sprintf("%s . %s : goto %s", strings.ToLower(string(p.Protocol)), portsOf(p.First, p.Last), p.Chain)
		}
		rules = append(rules, "meta l4proto . th dport vmap { "+strings.Join(jumps, ", ")+" }")
	}
	end := "saddr"
	if c.Direction == policy.Egress {
		end = "daddr"
	}
	for _, r := range c.Rules {
		if r.Set == "" {
			rules = append(rules, verdictOf(r.Target, c.Direction))
			continue
		}
		for _, f := range families {
			rules = append(rules, knftables.Concat(f.word, end, "@", f.setOf(r.Set), verdictOf(r.Target, c.Direction)))
		}
	}
	return append(rules, verdictOf(c.End, c.Direction))
}

func portsOf(first, last uint16) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func verdictOf(t policy.Target, d policy.Direction) string {
	switch t.Action {
	case policy.Allow:
		return "return"
	case policy.Goto:
		return "goto " + t.Chain
	default:
		return "goto " + dropOf(d)
	}
}
