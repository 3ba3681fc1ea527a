package firewall

import (
	"net/netip"
	"slices"

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
	sets     map[string]set
	chains   map[string][]rule   // rules by chain
	elements map[string]elements // of the maps of pods and marks, and of the sets of askers and of pods that may connect to themselves
	numbers  map[policy.Direction]map[string]int
	// resolvers is the name of the set of DNS servers; empty: no answers are copied.
	resolvers string
	links     links
	old       map[string][]rule // chains of the table before, which have the same rules under the same name
	fresh     []string          // chains that were added last
	// What the table was made for; constant maps.
	pods  map[netip.Addr]policy.PodChains
	ports map[string]policy.Link
}

// entry is an element of one of the sets and maps of a table.
type entry struct {
	set string
	element
}

// set is a set of addresses of one family, without its elements.
type set struct {
	addr     string // type of its elements
	interval bool
}

// newTable returns the table for a ruleset. It keeps the numbers of chains in old.
func newTable(r *policy.Ruleset, old *table) *table {
	t := &table{
		sets: map[string]set{}, chains: map[string][]rule{}, elements: map[string]elements{},
		numbers: numbersOf(r, old), old: old.chains, resolvers: r.Resolvers, pods: r.Pods, ports: r.Links,
	}
	defer func() { t.old, t.fresh, t.links.fresh = nil, nil, nil }()
	t.links = newLinks(r, t.numbers, old.links)
	for _, f := range families {
		for name, s := range r.Sets {
			t.sets[f.set(name)] = set{addr: f.addr, interval: s.Blocks}
		}
		t.elements[f.self()], t.elements[f.askers()] = elements{}, f.askersOf(r)
		for _, d := range directions {
			t.elements[f.podsOf(d)], t.elements[f.reversed(d)], t.elements[f.marksOf(d)] = elements{}, elements{}, elements{}
		}
	}
	for ip, chains := range r.Pods {
		for _, f := range families {
			if f.of(ip) {
				t.addPod(r, f, chains)
				put(t.elements, f.podEntries(ip, chains))
			}
		}
	}
	for _, link := range r.Links {
		put(t.elements, t.markEntries(link))
	}
	return t
}

// put adds elements to sets and maps.
func put(sets map[string]elements, list []entry) {
	for _, e := range list {
		sets[e.set][e.key] = e.verdict
	}
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

// podEntries returns the elements for a pod's address.
func (f family) podEntries(ip netip.Addr, chains policy.PodChains) (list []entry) {
	pod := keyOf(ip)
	self := pod
	self.again = true
	list = append(list, entry{f.self(), element{key: self}})
	for _, d := range directions {
		if chain := chains.In(d); chain != "" {
			list = append(list, entry{f.podsOf(d), element{pod, jump(f.name(chain))}},
				entry{f.reversed(d), element{pod, jump(f.reverse().name(chain))}})
		}
	}
	return list
}

// addPod adds the chains for an address of a pod.
func (t *table) addPod(r *policy.Ruleset, f family, chains policy.PodChains) {
	for _, d := range directions {
		t.addChain(r, f, chains.In(d))
		t.addChain(r, f.reverse(), chains.In(d))
	}
}

// markEntries returns the elements that lead from marks to the chains of a link. The chains exist in a family because the link has an
// address of it.
func (t *table) markEntries(link policy.Link) (list []entry) {
	for _, d := range directions {
		chain := link.Chains.In(d)
		number := t.numbers[d][chain]
		if number == 0 {
			continue
		}
		for _, f := range families {
			if slices.ContainsFunc(link.Addrs, f.of) {
				list = append(list, entry{f.marksOf(d), element{key{mark: fieldOf(d).value(number)}, jump(f.name(chain))}})
			}
		}
	}
	return list
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
	t.fresh = append(t.fresh, f.name(name))
	for _, p := range c.Ports {
		t.addChain(r, f, p.Chain)
	}
	for _, rule := range c.Rules {
		t.addChain(r, f, rule.Target.Chain)
	}
	t.addChain(r, f, c.End.Chain)
}

// rules returns the rules of a chain.
func (f family) rules(c policy.Chain) (rules []rule) {
	end := "saddr"
	if (c.Direction == policy.Egress) != f.backward {
		end = "daddr"
	}
	if len(c.Ports) > 0 {
		rules = append(rules, rule{family: f, ports: c.Ports})
	}
	for _, r := range c.Rules {
		out := rule{family: f, verdict: f.verdict(r.Target, c.Direction)}
		if r.Set != "" {
			out.sets = []lookup{{end: end, set: f.set(r.Set)}}
		}
		rules = append(rules, out)
	}
	return append(rules, rule{verdict: f.verdict(c.End, c.Direction)})
}

func (f family) verdict(t policy.Target, d policy.Direction) verdict {
	switch {
	case t.Action == policy.Allow:
		return back
	case t.Action == policy.Goto:
		return goTo(f.name(t.Chain))
	case f.backward:
		return goTo(dropOf(d))
	default:
		return goTo(denyOf(d))
	}
}
