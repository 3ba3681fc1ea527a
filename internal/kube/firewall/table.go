package firewall

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

// family holds the differences between IPv4 and IPv6. A chain exists in a family only if a pod of this node needs it there; a set
// exists in both, so that elements alone change when a pod of the other family comes.
type family struct {
	is4    bool
	word   string // in rules
	proto  string // of netfilter
	suffix string // of names
	addr   string // the type of its addresses
	// backward is true for chains that decide packets from the server to the client, instead of those from the client.
	backward bool
}

var families = [...]family{
	{is4: true, word: "ip", proto: "ipv4", suffix: "4", addr: "ipv4_addr"},
	{word: "ip6", proto: "ipv6", suffix: "6", addr: "ipv6_addr"},
}

// set returns the name that a set of package policy has in this family, and name that of a chain.
func (f family) set(name string) string { return name + "v" + f.suffix }

func (f family) name(name string) string {
	if f.backward {
		return name + "r" + f.suffix
	}
	return name + "v" + f.suffix
}

// reverse returns the family for chains that decide packets from the server to the client of a connection.
func (f family) reverse() family {
	f.backward = true
	return f
}

// self returns the name of the set with the pods that may connect to themselves.
func (f family) self() string { return "self" + f.suffix }

// podsOf returns the name of the map from pods to chains, reversed that of the map from pods to reversed chains, and marksOf that
// of the map from marks to chains.
func (f family) podsOf(d policy.Direction) string   { return d.String() + f.suffix }
func (f family) reversed(d policy.Direction) string { return f.podsOf(d) + "r" }
func (f family) marksOf(d policy.Direction) string  { return f.podsOf(d) + "m" }

func (f family) of(ip netip.Addr) bool { return ip.Is4() == f.is4 }

// table is a ruleset in the form of nftables: the objects that the constant rules refer to. It lacks the elements of sets of addresses.
type table struct {
	sets    map[string]set
	chains  map[string][]string            // rules by chain
	maps    map[string]map[string]string   // verdicts by map and key
	self    map[string]map[string][]string // elements of the sets of pods that may connect to themselves, by set and pod
	numbers map[policy.Direction]map[string]int
	askers  map[string]map[string][]string // elements of the sets of askers, by set and address
	// resolvers is the name of the set of DNS servers; empty: no answers are copied.
	resolvers string
	links     links
	old       map[string][]string // chains of the table before, which have the same rules under the same name
}

// set is a set of addresses of one family, without its elements.
type set struct {
	addr     string // type of its elements
	interval bool
}

// newTable returns the table for a ruleset. It keeps the numbers of chains in old.
func newTable(r *policy.Ruleset, old *table) *table {
	t := &table{
		sets: map[string]set{}, chains: map[string][]string{}, maps: map[string]map[string]string{}, self: map[string]map[string][]string{},
		numbers: numbersOf(r, old), old: old.chains, askers: askersOf(r), resolvers: r.Resolvers,
	}
	defer func() { t.old = nil }()
	t.links = newLinks(r, t.numbers)
	for _, f := range families {
		for name, s := range r.Sets {
			t.sets[f.set(name)] = set{addr: f.addr, interval: s.Blocks}
		}
		t.self[f.self()] = map[string][]string{}
		for _, d := range directions {
			t.maps[f.podsOf(d)], t.maps[f.reversed(d)], t.maps[f.marksOf(d)] = map[string]string{}, map[string]string{}, map[string]string{}
		}
	}
	for ip, chains := range r.Pods {
		for _, f := range families {
			if f.of(ip) {
				t.addPod(r, f, ip.String(), chains)
			}
		}
	}
	for _, link := range r.Links {
		t.addMarks(link)
	}
	return t
}

// numbersOf returns the number in the mark of each chain of a link, by direction.
func numbersOf(r *policy.Ruleset, old *table) map[policy.Direction]map[string]int {
	used := map[policy.Direction]map[string]bool{policy.Ingress: {}, policy.Egress: {}}
	for _, link := range r.Links {
		used[policy.Ingress][link.Chains.Ingress] = true
		used[policy.Egress][link.Chains.Egress] = true
	}
	numbers := map[policy.Direction]map[string]int{}
	for _, d := range directions {
		delete(used[d], "")
		numbers[d] = assign(sortedKeys(used[d]), old.numbers[d], fieldOf(d).highest)
	}
	return numbers
}

// addPod adds the chains of a pod's address.
func (t *table) addPod(r *policy.Ruleset, f family, ip string, chains policy.PodChains) {
	t.self[f.self()][ip] = []string{ip, ip}
	for d, chain := range map[policy.Direction]string{policy.Ingress: chains.Ingress, policy.Egress: chains.Egress} {
		if chain != "" {
			t.maps[f.podsOf(d)][ip] = "jump " + f.name(chain)
			t.maps[f.reversed(d)][ip] = "jump " + f.reverse().name(chain)
			t.addChain(r, f, chain)
			t.addChain(r, f.reverse(), chain)
		}
	}
}

// addMarks adds the chains of a link by their marks. The chains exist in a family because the link has an address of it.
func (t *table) addMarks(link policy.Link) {
	for d, chain := range map[policy.Direction]string{policy.Ingress: link.Chains.Ingress, policy.Egress: link.Chains.Egress} {
		number := t.numbers[d][chain]
		if number == 0 {
			continue
		}
		for _, f := range families {
			if slices.ContainsFunc(link.Addrs, f.of) {
				t.maps[f.marksOf(d)][fmt.Sprintf("%#x", fieldOf(d).value(number))] = "jump " + f.name(chain)
			}
		}
	}
}

// addChain adds a chain and all chains that it refers to.
func (t *table) addChain(r *policy.Ruleset, f family, name string) {
	if _, done := t.chains[f.name(name)]; done || name == "" {
		return
	}
	c := r.Chains[name]
	rules, known := t.old[f.name(name)]
	if !known {
		rules = f.rules(c)
	}
	t.chains[f.name(name)] = rules
	for _, p := range c.Ports {
		t.addChain(r, f, p.Chain)
	}
	for _, rule := range c.Rules {
		t.addChain(r, f, rule.Target.Chain)
	}
	t.addChain(r, f, c.End.Chain)
}

// rules returns the rules of a chain in the syntax of nft.
func (f family) rules(c policy.Chain) (rules []string) {
	port, end := "dport", "saddr"
	if f.backward {
		port = "sport"
	}
	if (c.Direction == policy.Egress) != f.backward {
		end = "daddr"
	}
	if len(c.Ports) > 0 {
		jumps := make([]string, len(c.Ports))
		for i, p := range c.Ports {
			jumps[i] = fmt.Sprintf("%s . %s : goto %s", strings.ToLower(string(p.Protocol)), portsOf(p.First, p.Last), f.name(p.Chain))
		}
		rules = append(rules, "meta l4proto . th "+port+" vmap { "+strings.Join(jumps, ", ")+" }")
	}
	for _, r := range c.Rules {
		verdict := f.verdict(r.Target, c.Direction)
		if r.Set != "" {
			verdict = knftables.Concat(f.word, end, "@", f.set(r.Set), verdict)
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
	switch {
	case t.Action == policy.Allow:
		return "return"
	case t.Action == policy.Goto:
		return "goto " + f.name(t.Chain)
	case f.backward:
		return "goto " + dropOf(d)
	default:
		return "goto " + denyOf(d)
	}
}
