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
		families[0].ownAddress(policy.Ingress) + " accept", families[1].ownAddress(policy.Ingress) + " accept",
		"oifname vmap @" + closedMap, setMark(allMarks, 0),
	}},
}

// ownAddress returns the condition that a frame has one of the port's addresses as its source (egress) or destination. Frames with
// a tag never match: their type is that of the tag.
func (f family) ownAddress(d policy.Direction) string {
	port, end := sides(d)
	return fmt.Sprintf("ether type %s %s . %s %s @%s", f.word, port, f.word, end, f.own())
}

// strayed returns the condition that a frame to an address of its sender would reach another port (egress), or that one from an address
// of its receiver comes from another port. The inet table accepts what a pod sends to itself, as through a Service.
func (f family) strayed(d policy.Direction) string {
	port, end, other := "iifname", "daddr", "oifname"
	if d == policy.Ingress {
		port, end, other = "oifname", "saddr", "iifname"
	}
	return fmt.Sprintf("ether type %[1]s %[2]s . %[1]s %[3]s @%[4]s %[5]s . %[1]s %[3]s != @%[4]s", f.word, port, end, f.own(), other)
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
	own    map[string]map[string][]string // elements of the sets with the ports' addresses, by set and element
	chains map[string][]string            // rules by chain
	maps   map[string]map[string]string   // verdicts by map and port
}

// newLinks returns the bridge table for a ruleset. numbers are those of the chains in the mark.
func newLinks(r *policy.Ruleset, numbers map[policy.Direction]map[string]int) links {
	l := links{
		own: map[string]map[string][]string{}, chains: map[string][]string{},
		maps: map[string]map[string]string{fromMap: {}, toMap: {}, closedMap: {}},
	}
	for _, f := range families {
		l.own[f.own()] = map[string][]string{}
	}
	for name, link := range r.Links {
		for _, ip := range link.Addrs {
			for _, f := range families {
				if f.of(ip) {
					l.own[f.own()][name+" . "+ip.String()] = []string{name, ip.String()}
				}
			}
		}
		l.maps[fromMap][name] = "jump " + l.chain(policy.Egress, link, numbers)
		if link.Chains.Ingress != "" {
			l.maps[toMap][name] = "jump " + l.chain(policy.Ingress, link, numbers)
			l.maps[closedMap][name] = "goto " + dropOf(policy.Ingress)
		}
	}
	return l
}

// chain adds the chain for a direction of a link, and returns its name. Its content depends on the name only.
func (l links) chain(d policy.Direction, link policy.Link, numbers map[policy.Direction]map[string]int) string {
	chain := link.Chains.Ingress
	if d == policy.Egress {
		chain = link.Chains.Egress
	}
	if chain == "" {
		const name = "unselected"
		l.chains[name] = unselected()
		return name
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
	name := fmt.Sprintf("%s-%d-ip%s", d, number, has)
	if _, done := l.chains[name]; !done {
		l.chains[name] = selected(d, number, has)
	}
	return name
}

// unselected returns the rules for frames from pods that no egress policy selects: no pod sends with the address of another pod.
func unselected() (rules []string) {
	for _, f := range families {
		rules = append(rules, f.ownAddress(policy.Egress)+" return")
	}
	return append(rules, "ether type { ip, ip6 } goto "+forged)
}

// selected returns the rules for frames of pods that policies select in a direction. number is the number of their chain; 0: none
// was left. has has the suffixes of the families in which the pods have addresses.
func selected(d policy.Direction, number int, has string) (rules []string) {
	verdict := "return"
	if d == policy.Ingress {
		verdict = "accept" // the last chain
	}
	drop := "goto " + dropOf(d)
	for _, f := range families {
		rules = append(rules, f.strayed(d)+" "+drop)
	}
	for _, f := range families {
		rules = append(rules, knftables.Concat(f.ownAddress(d), setMark(0, unjudged), verdict))
	}
	rules = append(rules, "ether type arp "+verdict, "ether type != { ip, ip6 } "+drop)
	if d == policy.Egress {
		rules = append(rules, "jump "+forged)
	}
	for _, f := range families {
		if !strings.Contains(has, f.suffix) {
			rules = append(rules, "ether type "+f.word+" "+drop)
		}
	}
	if number == 0 {
		return append(rules, drop)
	}
	mark := fieldOf(d)
	return append(rules, setMark(mark.mask, mark.value(number)|unjudged))
}

// changeBridge changes the bridge table from old to l.
func changeBridge(b batch, old, l links) {
	for _, f := range families {
		b.changeKeys(f.own(), old.own[f.own()], l.own[f.own()])
	}
	if old.hooked() && !l.hooked() {
		for _, h := range bridgeHooks {
			b.flush(&knftables.Chain{Name: h.name})
			b.del(&knftables.Chain{Name: h.name})
		}
	}
	remove := b.changeChains(old.chains, l.chains)
	for _, m := range []string{fromMap, toMap, closedMap} {
		b.changeMap(m, old.maps[m], l.maps[m])
	}
	remove()
	if l.hooked() && !old.hooked() {
		for _, h := range bridgeHooks {
			b.hook(h.name, h.hook, h.priority, h.rules...)
		}
	}
}

// hooked reports whether the table has base chains: whether a pod has a chain.
func (l links) hooked() bool { return len(l.maps[fromMap]) > 0 }
