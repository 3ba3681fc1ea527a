package guard

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"sigs.k8s.io/knftables"

	"weft/internal/ether"
)

// table is the part of a ruleset that changes with the pods and with the addresses of the bridge.
type table struct {
	elements map[string]map[string]string // values by set or map and key; the value is empty in a set
	chains   map[string][]string          // rules by chain
}

// newTable returns the table of a ruleset.
func newTable(r Ruleset) *table {
	t := &table{elements: map[string]map[string]string{}, chains: map[string][]string{
		chainOwn: nil, chainUplink: uplinkRules(r), chainPod: podRules(r), chainShared: sharedRules(r),
	}}
	if rules := postrouting(r); len(rules) > 0 {
		t.chains[chainPost] = rules
	}
	for _, s := range sets {
		t.elements[s.name] = map[string]string{}
	}
	for _, a := range r.BridgeAddrs {
		if a.Is4() {
			t.elements[setOwn4][a.String()] = ""
			continue
		}
		t.elements[setOwn6][a.String()] = ""
		t.chains[chainOwn] = append(t.chains[chainOwn], knftables.Concat(matchTarget(netip.PrefixFrom(a, a.BitLen())), drop(ReasonND)))
	}
	slices.Sort(t.chains[chainOwn])
	for _, p := range r.Bound {
		t.addPort(r.withoutOwn(p))
	}
	for _, link := range r.Open {
		t.elements[setOpen][quote(link)] = ""
	}
	for _, p := range r.Separated {
		t.separate(r, p)
	}
	if len(r.Separated) > 0 {
		t.chains[chainRouted] = routedRules(r)
	}
	return t
}

// withoutOwn returns a port without the addresses of the bridge, which no port may use, whatever was requested for it.
func (r Ruleset) withoutOwn(p Port) Port {
	own := func(a netip.Addr) bool { return slices.Contains(r.BridgeAddrs, a) }
	p.Addrs = slices.DeleteFunc(slices.Clone(p.Addrs), own)
	p.Allow = slices.DeleteFunc(slices.Clone(p.Allow), func(a netip.Prefix) bool { return a.IsSingleIP() && own(a.Addr()) })
	if p.MAC == r.BridgeMAC {
		p.MAC = ether.Addr{}
	}
	return p
}

// addPort adds a bound port. Without a MAC it sends nothing.
func (t *table) addPort(p Port) {
	port, mac := quote(p.Link), p.MAC.String()
	t.elements[setBound][port] = ""
	if p.MAC.IsZero() {
		return
	}
	t.elements[setMACs][key(port, mac)] = ""
	if !p.hasIPv6() {
		t.elements[setNoIPv6][port] = ""
	}
	var more, targets []string
	for _, a := range p.all() {
		if a.Addr().Is6() {
			targets = append(targets, matchTarget(a)+" accept")
		}
		switch {
		case !a.IsSingleIP():
			more = append(more, moreRules(a)...)
		case a.Addr().Is4():
			t.elements[setBind4][key(port, mac, a.Addr().String())] = ""
		default:
			t.elements[setBind6][key(port, mac, a.Addr().String())] = ""
		}
	}
	t.jump(mapMore, p.Link, more)
	t.jump(mapTarget, p.Link, targets)
}

// jump adds a chain with rules for a port to a map. Without rules there is none.
func (t *table) jump(m, link string, rules []string) {
	if len(rules) == 0 {
		return
	}
	name := m + "-" + link
	t.chains[name] = rules
	t.elements[m][quote(link)] = "jump " + name
}

// moreRules accepts what a pod sends with an address in a prefix.
func moreRules(p netip.Prefix) []string {
	if p.Addr().Is6() {
		return []string{fmt.Sprintf("ip6 saddr %s goto known6", p)}
	}
	return []string{
		fmt.Sprintf("ip saddr %s goto known4", p),
		fmt.Sprintf("arp saddr ip %s accept", p),
		fmt.Sprintf("arp saddr ip 0.0.0.0 arp daddr ip %s accept", p),
	}
}

// matchTarget matches neighbor discovery for a target in a prefix of IPv6.
func matchTarget(p netip.Prefix) string {
	bytes := p.Addr().As16()
	value := fmt.Sprintf("0x%x", bytes)
	if p.IsSingleIP() {
		return target + " " + value
	}
	mask := make([]byte, len(bytes))
	for i := range p.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return fmt.Sprintf("%s & 0x%x == %s", target, mask, value)
}

// key returns the key of an element with several parts.
func key(parts ...string) string { return strings.Join(parts, " . ") }

// whole returns the transaction that replaces the table.
func whole(nft knftables.Interface, r Ruleset, t *table) *knftables.Transaction {
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{})
	tx.Delete(&knftables.Table{})
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("weft: what pods may send")})
	for _, reason := range Reasons() {
		tx.Add(&knftables.Counter{Name: dropChain(reason)})
	}
	for _, s := range sets {
		if s.isMap {
			tx.Add(&knftables.Map{Name: s.name, Type: s.elements})
		} else {
			tx.Add(&knftables.Set{Name: s.name, Type: s.elements})
		}
	}
	if r.Broadcasts > 0 {
		tx.Add(&knftables.Set{
			Name: broadcasts, Type: "ifname", Flags: []knftables.SetFlag{knftables.DynamicFlag}, Timeout: knftables.PtrTo(time.Minute),
		})
	}
	chains := constant(r)
	for _, c := range chains {
		tx.Add(newChain(c.name, c.hook))
	}
	for _, c := range chains {
		for _, rule := range c.rules {
			tx.Add(&knftables.Rule{Chain: c.name, Rule: rule})
		}
	}
	addChange(tx, &table{}, t)
	return tx
}

// newChain returns a chain, on a hook unless that is empty.
func newChain(name string, hook knftables.BaseChainHook) *knftables.Chain {
	c := &knftables.Chain{Name: name}
	if hook != "" {
		c.Type, c.Hook = knftables.PtrTo(knftables.FilterType), knftables.PtrTo(hook)
		c.Priority = knftables.PtrTo(knftables.BaseChainPriority(priority))
	}
	return c
}

// addChange adds what changes the table from old to t: first new chains in the order of their names, then the elements that refer to
// them, last the removal of chains.
func addChange(tx *knftables.Transaction, old, t *table) {
	for _, name := range slices.Sorted(maps.Keys(t.chains)) {
		before, known := old.chains[name]
		if known && slices.Equal(before, t.chains[name]) {
			continue
		}
		hook := knftables.BaseChainHook("")
		if name == chainPost {
			hook = knftables.PostroutingHook
		}
		tx.Add(newChain(name, hook))
		tx.Flush(&knftables.Chain{Name: name})
		for _, rule := range t.chains[name] {
			tx.Add(&knftables.Rule{Chain: name, Rule: rule})
		}
	}
	for _, s := range sets {
		before, after := old.elements[s.name], t.elements[s.name]
		for _, k := range slices.Sorted(maps.Keys(before)) {
			if value, stays := after[k]; !stays || value != before[k] {
				tx.Delete(element(s.name, s.isMap, k, before[k]))
			}
		}
		for _, k := range slices.Sorted(maps.Keys(after)) {
			if value, known := before[k]; !known || value != after[k] {
				tx.Add(element(s.name, s.isMap, k, after[k]))
			}
		}
	}
	for _, name := range slices.Backward(slices.Sorted(maps.Keys(old.chains))) { // as they were added: jumps lead to earlier names
		if _, stays := t.chains[name]; !stays {
			tx.Delete(&knftables.Chain{Name: name})
		}
	}
}

func element(name string, isMap bool, k, value string) *knftables.Element {
	parts := strings.Split(k, " . ")
	if isMap {
		return &knftables.Element{Map: name, Key: parts, Value: []string{value}}
	}
	return &knftables.Element{Set: name, Key: parts}
}
