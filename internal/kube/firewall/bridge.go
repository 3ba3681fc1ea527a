package firewall

import (
	"fmt"
	"strings"

	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
)

// Priorities of the bridge's forward hook. br_netfilter passes IP packets to the inet family at 0.
const (
	beforeInet knftables.BaseChainPriority = "-200"
	afterInet  knftables.BaseChainPriority = "200"
)

// Objects of the bridge table.
const (
	fromMap   = "from"     // ports of pods : chain for the frames that they send
	toMap     = "to"       // ports of pods that ingress policies select : chain for the frames that they get
	closedMap = "closed"   // the same ports : drop, for routed packets
	forged    = "forged"   // chain for packets that do not have the sender's address
	lost      = "unjudged" // counter and chain of packets that did not pass the inet table
)

// own returns the name of the set with the addresses of each port.
func (f family) own() string { return "own" + f.suffix }

// everyPod returns the name of the set with the addresses of all pods of the cluster.
func (f family) everyPod() string { return "pods" + f.suffix }

// wholeBridge adds the constant part of the bridge table.
func wholeBridge(b batch) {
	b.replaceTable("weft: network policies by port; written by weft-kube, which undoes other changes")
	for _, d := range directions {
		addDrop(b, d)
	}
	for _, f := range families {
		b.add(&knftables.Set{Name: f.own(), Type: "ifname . " + f.addr})
		b.add(&knftables.Set{Name: f.everyPod(), Type: f.addr})
	}
	b.chain(forged,
		"ip saddr 224.0.0.0/3 goto "+dropOf(policy.Egress), // a group cannot send; answers to it would count as replies
		"ip6 saddr ff00::/8 goto "+dropOf(policy.Egress),
		"ip saddr @"+families[0].everyPod()+" goto "+dropOf(policy.Egress),
		"ip6 saddr @"+families[1].everyPod()+" goto "+dropOf(policy.Egress))
	for _, m := range []string{fromMap, toMap, closedMap} {
		b.add(&knftables.Map{Name: m, Type: "ifname : verdict"})
	}
	b.add(&knftables.Counter{Name: lost})
	b.chain(lost, `counter name "`+lost+`"`, "drop")
}

// bridgeHooks are the base chains of the bridge table. They exist only if a pod needs them: without policies, frames pass no rule.
var bridgeHooks = [...]struct {
	name     string
	hook     knftables.BaseChainHook
	priority knftables.BaseChainPriority
	rules    []string
}{
	{"forward", knftables.ForwardHook, beforeInet, []string{"iifname vmap @" + fromMap, "oifname vmap @" + toMap}},
	// The router's packets pass the inet table in any case.
	{"input", knftables.InputHook, beforeInet, []string{
		"iifname vmap @" + fromMap, knftables.Concat(has(unjudged), setMark(unjudged, 0)),
	}},
	{"forwarded", knftables.ForwardHook, afterInet, []string{
		knftables.Concat(has(unjudged), "goto", lost), knftables.Concat(has(allMarks), setMark(allMarks, 0)),
	}},
	{"output", knftables.OutputHook, beforeInet, []string{
		fmt.Sprintf("meta mark & %#x == 0 accept", routed),
		families[0].owned(policy.Ingress, marking{}, accept).text(), families[1].owned(policy.Ingress, marking{}, accept).text(),
		"oifname vmap @" + closedMap, setMark(allMarks, 0),
	}},
}

// owned returns the rule for frames with one of the port's addresses as their source (egress) or destination. Frames with a tag never
// match: their type is that of the tag.
func (f family) owned(d policy.Direction, m marking, v verdict) rule {
	port, end := sides(d)
	return rule{family: f, types: types{any: []string{f.word}}, sets: []lookup{{port: port, end: end, set: f.own()}}, mark: m, verdict: v}
}

// strayed returns the rule for frames to an address of their sender that would reach another port (egress), or from an address of their
// receiver that come from another port. The inet table accepts what a pod sends to itself, as through a Service.
func (f family) strayed(d policy.Direction, v verdict) rule {
	port, end, other := "iifname", "daddr", "oifname"
	if d == policy.Ingress {
		port, end, other = "oifname", "saddr", "iifname"
	}
	sets := []lookup{{port: port, end: end, set: f.own()}, {port: other, end: end, set: f.own(), not: true}}
	return rule{family: f, types: types{any: []string{f.word}}, sets: sets, verdict: v}
}

// sides returns the port and the address of the pod that the policies of a direction protect.
func sides(d policy.Direction) (port, end string) {
	if d == policy.Egress {
		return "iifname", "saddr"
	}
	return "oifname", "daddr"
}

// links is the bridge table: the objects that its constant rules refer to.
type links struct {
	chains   map[string][]rule   // rules by chain
	elements map[string]elements // of the maps of ports, and of the sets of their addresses
	old      map[string][]rule   // chains of the table before, which have the same rules under the same name
	fresh    []string            // chains that were added last
}

// newLinks returns the bridge table for a ruleset. numbers are those of the chains in the mark.
func newLinks(r *policy.Ruleset, numbers map[policy.Direction]map[string]int, old links) links {
	l := links{chains: map[string][]rule{}, elements: map[string]elements{fromMap: {}, toMap: {}, closedMap: {}}, old: old.chains}
	for _, f := range families {
		l.elements[f.own()] = elements{}
	}
	for name, link := range r.Links {
		put(l.elements, l.entries(name, link, numbers))
	}
	l.old = nil
	return l
}

// entries returns the elements for a link, and adds the chains that they lead to.
func (l *links) entries(name string, link policy.Link, numbers map[policy.Direction]map[string]int) (list []entry) {
	for _, ip := range link.Addrs {
		for _, f := range families {
			if f.of(ip) {
				k := keyOf(ip)
				k.port = name
				list = append(list, entry{f.own(), element{key: k}})
			}
		}
	}
	port := key{port: name}
	list = append(list, entry{fromMap, element{port, jump(l.chain(policy.Egress, link, numbers))}})
	if link.Chains.Ingress != "" {
		list = append(list, entry{toMap, element{port, jump(l.chain(policy.Ingress, link, numbers))}},
			entry{closedMap, element{port, goTo(dropOf(policy.Ingress))}})
	}
	return list
}

// chain adds the chain for a direction of a link, and returns its name. Its content depends on the name only.
func (l *links) chain(d policy.Direction, link policy.Link, numbers map[policy.Direction]map[string]int) string {
	chain := link.Chains.In(d)
	if chain == "" {
		return l.addChain("unselected", unselected)
	}
	number, has := numbers[d][chain], ""
	for _, f := range families {
		for _, ip := range link.Addrs {
			if f.of(ip) {
				has += f.suffix
				break
			}
		}
	}
	return l.addChain(fmt.Sprintf("%s-%d-ip%s", d, number, has), func() []rule { return selected(d, number, has) })
}

// addChain adds a chain unless it is there, and returns its name.
func (l *links) addChain(name string, rules func() []rule) string {
	if _, done := l.chains[name]; !done {
		known, ok := l.old[name]
		if !ok {
			known = rules()
		}
		l.chains[name] = known
		l.fresh = append(l.fresh, name)
	}
	return name
}

// unselected returns the rules for frames from pods that no egress policy selects: no pod sends with the address of another pod.
func unselected() (rules []rule) {
	for _, f := range families {
		rules = append(rules, f.owned(policy.Egress, marking{}, back))
	}
	return append(rules, rule{types: anyIP, verdict: goTo(forged)})
}

// anyIP is the condition that a frame has an IP packet, and notIP that it has none.
var (
	anyIP = types{any: []string{"ip", "ip6"}}
	notIP = types{any: anyIP.any, not: true}
)

// selected returns the rules for frames of pods that policies select in a direction. number is the number of their chain; 0: none
// was left. has has the suffixes of the families in which the pods have addresses.
func selected(d policy.Direction, number int, has string) (rules []rule) {
	pass := back
	if d == policy.Ingress {
		pass = accept // the last chain
	}
	drop := goTo(dropOf(d))
	for _, f := range families {
		rules = append(rules, f.strayed(d, drop))
	}
	for _, f := range families {
		rules = append(rules, f.owned(d, marking{set: unjudged}, pass))
	}
	rules = append(rules, rule{types: types{any: []string{"arp"}}, verdict: pass}, rule{types: notIP, verdict: drop})
	if d == policy.Egress {
		rules = append(rules, rule{verdict: jump(forged)})
	}
	for _, f := range families {
		if !strings.Contains(has, f.suffix) {
			rules = append(rules, rule{types: types{any: []string{f.word}}, verdict: drop})
		}
	}
	if number == 0 {
		return append(rules, rule{verdict: drop})
	}
	mark := fieldOf(d)
	return append(rules, rule{mark: marking{clear: mark.mask, set: mark.value(number) | unjudged}})
}

// changeBridge changes the bridge table from old to l.
func changeBridge(b batch, old, l links) {
	if old.hooked() && !l.hooked() {
		for _, h := range bridgeHooks {
			b.flush(&knftables.Chain{Name: h.name})
			b.del(&knftables.Chain{Name: h.name})
		}
	}
	remove := b.changeChains(old.chains, l.chains)
	b.changeElements(old.elements, l.elements)
	remove()
	if l.hooked() && !old.hooked() {
		for _, h := range bridgeHooks {
			b.hook(h.name, h.hook, h.priority, h.rules...)
		}
	}
}

// hooked reports whether the table has base chains: whether a pod has a chain.
func (l links) hooked() bool { return len(l.elements[fromMap]) > 0 }
