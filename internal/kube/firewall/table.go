package firewall

import (
	"fmt"
	"net/netip"
	"strings"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

// family holds the differences between IPv4 and IPv6. A set or chain belongs to one family, and exists only if a pod of this
// node needs it.
type family struct {
	is4    bool
	word   string // in rules
	suffix string // of names
	addr   string // the type of its addresses
}

var families = [...]family{
	{is4: true, word: "ip", suffix: "4", addr: "ipv4_addr"},
	{word: "ip6", suffix: "6", addr: "ipv6_addr"},
}

// name returns the name that a set or a chain of package policy has in this family.
func (f family) name(name string) string { return name + "v" + f.suffix }

// self returns the name of the set with the pods that may connect to themselves.
func (f family) self() string { return "self" + f.suffix }

// podsOf returns the name of the map from pods to chains.
func (f family) podsOf(d policy.Direction) string { return d.String() + f.suffix }

func (f family) of(ip netip.Addr) bool { return ip.Is4() == f.is4 }

// table is a ruleset in the form of nftables: the objects that the constant rules refer to.
type table struct {
	sets   map[string]set
	chains map[string][]string          // rules by chain
	pods   map[string]map[string]string // chains by map and pod
}

// set is a set of addresses of one family.
type set struct {
	addr     string // type of its elements
	interval bool
	keys     []netip.Prefix // sorted
}

// newTable returns the table for a ruleset.
func newTable(r *policy.Ruleset) *table {
	t := &table{sets: map[string]set{}, chains: map[string][]string{}, pods: map[string]map[string]string{}}
	for _, f := range families {
		for _, d := range directions {
			t.pods[f.podsOf(d)] = map[string]string{}
		}
	}
	for ip, chains := range r.Pods {
		for _, f := range families {
			if !f.of(ip) {
				continue
			}
			for d, chain := range map[policy.Direction]string{policy.Ingress: chains.Ingress, policy.Egress: chains.Egress} {
				if chain != "" {
					t.pods[f.podsOf(d)][ip.String()] = f.name(chain)
					t.addChain(r, f, chain)
				}
			}
		}
	}
	return t
}

// addChain adds a chain and all chains and sets that it refers to.
func (t *table) addChain(r *policy.Ruleset, f family, name string) {
	if _, done := t.chains[f.name(name)]; done || name == "" {
		return
	}
	c := r.Chains[name]
	t.chains[f.name(name)] = f.rules(c)
	for _, p := range c.Ports {
		t.addChain(r, f, p.Chain)
	}
	for _, rule := range c.Rules {
		t.addChain(r, f, rule.Target.Chain)
		if rule.Set != "" {
			t.addSet(r, f, rule.Set)
		}
	}
	t.addChain(r, f, c.End.Chain)
}

func (t *table) addSet(r *policy.Ruleset, f family, name string) {
	if _, done := t.sets[f.name(name)]; done {
		return
	}
	s := set{addr: f.addr, interval: r.Sets[name].Blocks}
	for _, p := range r.Sets[name].Prefixes {
		if f.of(p.Addr()) {
			s.keys = append(s.keys, p)
		}
	}
	t.sets[f.name(name)] = s
}

// rules returns the rules of a chain in the syntax of nft.
func (f family) rules(c policy.Chain) (rules []string) {
	if len(c.Ports) > 0 {
		jumps := make([]string, len(c.Ports))
		for i, p := range c.Ports {
			jumps[i] = fmt.Sprintf("%s . %s : goto %s", strings.ToLower(string(p.Protocol)), portsOf(p.First, p.Last), f.name(p.Chain))
		}
		rules = append(rules, "meta l4proto . th dport vmap { "+strings.Join(jumps, ", ")+" }")
	}
	end := "saddr"
	if c.Direction == policy.Egress {
		end = "daddr"
	}
	for _, r := range c.Rules {
		verdict := f.verdict(r.Target, c.Direction)
		if r.Set != "" {
			verdict = knftables.Concat(f.word, end, "@", f.name(r.Set), verdict)
		}
		rules = append(rules, verdict)
	}
	return append(rules, f.verdict(c.End, c.Direction))
}

func portsOf(first, last uint16) string {
	if first == last {
		return fmt.Sprint(first)
	}
	return fmt.Sprintf("%d-%d", first, last)
}

func (f family) verdict(t policy.Target, d policy.Direction) string {
	switch t.Action {
	case policy.Allow:
		return "return"
	case policy.Goto:
		return "goto " + f.name(t.Chain)
	default:
		return "goto " + dropOf(d)
	}
}
