package policy

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
)

// State has the decisions of one node and follows changes of the cluster. A change of a pod costs what concerns it: the sets that may
// select the pod, and the chains of the pod if it is local. Its methods must not be called concurrently.
//
//	SetPod, SetNodes, … ──> index ──> sets (elements)      ┐
//	SetPolicies ──────────> sources ─> chains of local pods ┴─> Update ──> Change, Ruleset
type State struct {
	index
	sources

	sets     map[string]*liveSet
	global   []*liveSet            // sets with pods in any namespace
	bySpace  map[string][]*liveSet // other sets by the namespaces of their pods
	addrs    multiset              // of all pods
	domains  map[Domain][]netip.Addr
	enforced bool // the addresses of all pods were part of the last Change

	chains map[string]Chain
	built  map[string]string // names of chains, by the key of selecting
	byPeer map[string][]rule // egress rules with port numbers in place of names, by the key of their source and the numbers

	dirty map[podKey]bool // local pods with chains to choose
	all   bool            // the chains of all local pods are to be chosen
	rules *Ruleset        // the last one, without elements
	stale bool            // rules may have chains and sets that no pod needs
	own   map[podKey]PodChains
	held  map[podKey]held             // what local pods have in rules
	ports map[string]*portUse         // by term, name and protocol
	named map[podKey]map[*source]bool // policies with ports by name that select a local pod
}

// Change is the difference between two rulesets of a State.
type Change struct {
	// Rules has all chains, pods, links, and the names of all sets, without Addrs and the elements of sets. It is nil if only elements
	// have changed. The receiver must not change it.
	Rules *Ruleset
	// Sets has the changed elements of sets, by name; of a new set, all are added.
	Sets map[string]Elements
	// Addrs has the changes of Ruleset.Addrs.
	Addrs Elements
	// Extension is set if Rules differs from the rules before only in what it lists, and all chains and sets from before are still there.
	Extension *Extension
}

// Extension lists the pods, links and sets that a Change adds, changes or, but for sets, removes.
type Extension struct {
	Pods  []netip.Addr
	Links []string
	Sets  []string // new ones
}

// held is what a local pod has in the rules.
type held struct {
	pods []netip.Addr
	link string // empty: none
}

// Elements are changes to the elements of a set. Both lists are sorted.
type Elements struct{ Added, Removed []netip.Prefix }

// Empty reports whether no rule and no element has changed. Problems may have.
func (c Change) Empty() bool {
	return c.Rules == nil && len(c.Sets) == 0 && len(c.Addrs.Added)+len(c.Addrs.Removed) == 0
}

// NewState returns the State of a node in an empty cluster.
func NewState() *State {
	return &State{
		index: newIndex(), sources: newSources(), sets: map[string]*liveSet{}, bySpace: map[string][]*liveSet{}, ports: map[string]*portUse{},
		chains: map[string]Chain{}, built: map[string]string{}, byPeer: map[string][]rule{},
		dirty: map[podKey]bool{}, own: map[podKey]PodChains{}, held: map[podKey]held{}, rules: newRuleset(),
		named: map[podKey]map[*source]bool{}, domains: map[Domain][]netip.Addr{},
	}
}

func newRuleset() *Ruleset {
	return &Ruleset{Sets: map[string]Set{}, Chains: map[string]Chain{}, Pods: map[netip.Addr]PodChains{}, Links: map[string]Link{}}
}

// SetPod adds a pod, or replaces the one of the same name. The State keeps p, which must not change.
func (s *State) SetPod(p *Pod) {
	if old := s.pods[p.key()]; old != nil {
		s.removePod(old)
	}
	s.add(p)
	s.count(p, 1)
	s.touch(p)
}

// DeletePod removes a pod, if there is one of that name.
func (s *State) DeletePod(namespace, name string) {
	if old := s.pods[podKey{namespace, name}]; old != nil {
		s.removePod(old)
	}
}

func (s *State) removePod(p *Pod) {
	s.count(p, -1)
	s.remove(p)
	s.touch(p)
}

// touch marks a local pod as changed.
func (s *State) touch(p *Pod) {
	if p.Local {
		s.dirty[p.key()] = true
	}
}

// count adds what a pod contributes to sets and counters n times.
func (s *State) count(p *Pod, n int) {
	addresses := p.addresses()
	s.addrs.add(addresses, n)
	for _, sets := range [][]*liveSet{s.bySpace[p.Namespace], s.global} {
		for _, set := range sets {
			s.countIn(set, p, addresses, n)
		}
	}
	if len(p.Ports) == 0 {
		return
	}
	for _, u := range s.ports {
		if s.holds(&u.term, p) {
			u.add(p, n)
		}
	}
}

func (s *State) countIn(set *liveSet, p *Pod, addresses []netip.Addr, n int) {
	for _, t := range set.terms {
		if t.pods != nil && s.holds(t.pods, p) {
			set.hosts.add(addresses, n)
		}
	}
}

// SetNamespaces replaces the labels of all namespaces, by name. The State keeps the map, which must not change.
func (s *State) SetNamespaces(namespaces map[string]Labels) {
	changed := map[string]bool{}
	for name, l := range namespaces {
		if old, ok := s.namespaces[name]; !ok || !maps.Equal(old, l) {
			changed[name] = true
		}
	}
	for name := range s.namespaces {
		if _, ok := namespaces[name]; !ok {
			changed[name] = true
		}
	}
	if len(changed) == 0 {
		return
	}
	move := func(n int) {
		for name := range changed {
			for _, p := range s.byNamespace[name] {
				s.count(p, n)
			}
		}
	}
	move(-1)
	s.namespaces, s.spaces, s.all = namespaces, map[string]map[string]bool{}, true
	move(1)
}

// SetNodes replaces the nodes. The State keeps them, and they must not change.
func (s *State) SetNodes(nodes []Node) {
	before := s.nodes
	s.nodes = make(map[string]Node, len(nodes))
	var removed, added []Node
	for _, n := range nodes {
		s.nodes[n.Name] = n
		old, known := before[n.Name]
		if known && old.equal(n) {
			continue
		}
		if known {
			removed = append(removed, old)
		}
		added = append(added, n)
	}
	for name, n := range before {
		if _, ok := s.nodes[name]; !ok {
			removed = append(removed, n)
		}
	}
	if len(removed)+len(added) == 0 {
		return
	}
	for _, set := range s.sets {
		if !set.hasNodes() {
			continue
		}
		for _, n := range removed {
			set.addNode(n, -1)
		}
		for _, n := range added {
			set.addNode(n, 1)
		}
	}
}

// equal reports whether two nodes have the same properties.
func (n Node) equal(m Node) bool {
	return maps.Equal(n.Labels, m.Labels) && slices.Equal(n.IPs, m.IPs) && slices.Equal(n.Aliases, m.Aliases)
}

// SetPolicies replaces the policies. An object that was in the previous call as well has not changed.
func (s *State) SetPolicies(p Policies) {
	if s.set(p) {
		s.all = true
		clear(s.spaces) // it may have selectors of policies that are gone
	}
}

// Update returns what has changed since the last call. Problems are in Ruleset.
func (s *State) Update() (c Change) {
	s.notePorts()
	if s.all || s.stale || len(s.dirty) > 0 {
		if rules := s.choose(); rules != nil {
			s.rules, c.Rules = rules, rules
		}
	}
	s.flush(&c)
	return c
}

// Extend is Update for a caller in a hurry: it takes less time if only few local pods have changed. Chains and sets that no pod needs any
// more stay until the next Update.
func (s *State) Extend() (c Change) {
	s.notePorts()
	if !s.extend(&c) {
		return s.Update()
	}
	s.flush(&c)
	return c
}

// Stale reports whether the rules may have chains and sets that no pod needs, which the next Update removes.
func (s *State) Stale() bool { return s.stale }

// notePorts notes whether the numbers that pods use for ports by name have changed.
func (s *State) notePorts() {
	for _, u := range s.ports {
		if u.changed {
			s.all = s.all || !slices.Equal(u.numbers(), u.seen)
			u.changed = false
		}
	}
}

// flush adds the changes of elements.
func (s *State) flush(c *Change) {
	c.Sets = map[string]Elements{}
	for name, set := range s.sets {
		if _, used := s.rules.Sets[name]; !used || !set.changed() {
			continue
		}
		if e := set.flush(); len(e.Added)+len(e.Removed) > 0 {
			c.Sets[name] = e
		}
	}
	c.Addrs = s.flushAddrs()
}

// flushAddrs returns the changes of the addresses of all pods, which count only while there are policies.
func (s *State) flushAddrs() Elements {
	before := s.addrs.sorted
	if enforced := s.any(); s.enforced != enforced {
		s.enforced = enforced
		if !enforced {
			before = slices.Clone(before)
		}
		s.addrs.flush()
		if enforced {
			return Elements{Added: appendHosts(nil, s.addrs.sorted)}
		}
		return Elements{Removed: appendHosts(nil, before)}
	}
	added, removed := s.addrs.flush()
	if !s.enforced {
		return Elements{}
	}
	return Elements{Added: appendHosts(nil, added), Removed: appendHosts(nil, removed)}
}

// Ruleset returns all decisions, as they were at the last Update. The caller must not change it.
func (s *State) Ruleset() *Ruleset {
	out := &Ruleset{
		Sets: make(map[string]Set, len(s.rules.Sets)), Chains: s.rules.Chains, Pods: s.rules.Pods, Links: s.rules.Links,
		Problems: s.rules.Problems,
		Askers:   s.rules.Askers, Resolvers: s.rules.Resolvers,
	}
	for name := range s.rules.Sets {
		out.Sets[name] = s.sets[name].set()
	}
	if s.enforced {
		out.Addrs = s.addrs.clone()
	}
	return out
}

// Problems are policies that cannot be enforced as written, sorted by kind, namespace and name.
func (s *State) Problems() []Problem { return s.rules.Problems }

// choose chooses the chains of local pods that may have changed, and returns the rules; nil if they are as before.
func (s *State) choose() *Ruleset {
	if s.all {
		for _, u := range s.ports {
			u.used = false
		}
		clear(s.own)
		clear(s.named)
		clear(s.byPeer)
		for key := range s.local {
			s.dirty[key] = true
		}
	}
	for key := range s.dirty {
		s.chooseFor(key)
	}
	rules := newRuleset()
	clear(s.held)
	for _, key := range slices.SortedFunc(maps.Keys(s.local), podKey.compare) {
		s.addPod(rules, s.local[key], s.own[key])
	}
	rules.Problems = s.problems()
	s.settlePorts()
	clear(s.dirty)
	stale := s.stale
	s.all, s.stale = false, false
	s.sweep(rules)
	if !stale && maps.Equal(rules.Pods, s.rules.Pods) && maps.EqualFunc(rules.Links, s.rules.Links, Link.equal) {
		s.rules.Problems = rules.Problems
		return nil
	}
	return rules
}

// chooseFor chooses the chains of a local pod, if it is there.
func (s *State) chooseFor(key podKey) {
	delete(s.named, key)
	p := s.local[key]
	if p == nil {
		delete(s.own, key)
		return
	}
	s.own[key] = PodChains{Ingress: s.podChain(p, Ingress), Egress: s.podChain(p, Egress)}
}

// settlePorts remembers the numbers of ports that chains depend on. If all chains were chosen, it forgets the ports of none.
func (s *State) settlePorts() {
	for key, u := range s.ports {
		if !u.used && s.all {
			delete(s.ports, key)
		} else if s.all || u.seen == nil {
			u.seen = u.numbers()
		}
	}
}

// equal reports whether two links are the same.
func (l Link) equal(m Link) bool { return l.Chains == m.Chains && slices.Equal(l.Addrs, m.Addrs) }

// addPod adds the chains and the port of a local pod.
func (s *State) addPod(rules *Ruleset, p *Pod, chains PodChains) {
	addrs := p.addresses()
	var h held
	if chains != (PodChains{}) {
		h.pods = slices.Clone(addrs)
		for _, ip := range addrs {
			rules.Pods[ip] = chains
		}
		if p.LinkLocal.IsValid() && !p.hasIPv6() { // its policies name no IPv6 address, so no rule of theirs can allow this one
			rules.Pods[p.LinkLocal] = PodChains{Ingress: s.denied(chains.Ingress, Ingress), Egress: s.denied(chains.Egress, Egress)}
			h.pods = append(h.pods, p.LinkLocal)
		}
	}
	if s.any() && p.Link != "" && len(addrs) > 0 {
		rules.Links[p.Link] = Link{Addrs: slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare), Chains: chains}
		h.link = p.Link
	}
	s.held[p.key()] = h
}

// keep adds a chain, and the chains and sets that it leads to, to rules. It adds the names of sets to newSets.
func (s *State) keep(rules *Ruleset, name string, newSets *[]string) {
	if _, done := rules.Chains[name]; done || name == "" {
		return
	}
	chain := s.chains[name]
	rules.Chains[name] = chain
	for _, p := range chain.Ports {
		s.keep(rules, p.Chain, newSets)
	}
	for _, rule := range chain.Rules {
		s.keep(rules, rule.Target.Chain, newSets)
		if _, done := rules.Sets[rule.Set]; !done && rule.Set != "" {
			rules.Sets[rule.Set] = Set{Blocks: s.sets[rule.Set].interval}
			*newSets = append(*newSets, rule.Set)
		}
	}
	s.keep(rules, chain.End.Chain, newSets)
}

// sweep adds the chains and sets that pods reach to rules, and forgets the others.
func (s *State) sweep(rules *Ruleset) {
	var sets []string
	for _, p := range rules.Pods {
		s.keep(rules, p.Ingress, &sets)
		s.keep(rules, p.Egress, &sets)
	}
	s.addAskers(rules)
	maps.DeleteFunc(s.chains, func(name string, _ Chain) bool { _, used := rules.Chains[name]; return !used })
	maps.DeleteFunc(s.built, func(_, name string) bool { _, used := rules.Chains[name]; return !used })
	gone := map[*liveSet]bool{}
	for name, set := range s.sets {
		if _, used := rules.Sets[name]; !used {
			gone[set] = true
			delete(s.sets, name)
		}
	}
	if len(gone) == 0 {
		return
	}
	unused := func(set *liveSet) bool { return gone[set] }
	s.global = slices.DeleteFunc(s.global, unused)
	for space, list := range s.bySpace {
		if list = slices.DeleteFunc(list, unused); len(list) == 0 {
			delete(s.bySpace, space)
		} else {
			s.bySpace[space] = list
		}
	}
}

// addSet returns the name of the set of a definition, and adds it if there is none.
func (s *State) addSet(definition string, terms []term) string {
	name := digest("s", definition)
	if _, ok := s.sets[name]; ok {
		return name
	}
	set := s.newSet(terms)
	s.sets[name] = set
	spaces, all := set.spaces()
	if all {
		s.global = append(s.global, set)
	}
	for _, space := range spaces {
		s.bySpace[space] = append(s.bySpace[space], set)
	}
	return name
}

// use returns the counter of the numbers that the pods of t use for a port name and protocol.
func (s *State) use(t *podTerm, name, protocol string) *portUse {
	key := strings.Join([]string{newPodTerm(*t).key, name, protocol}, "\x00")
	u := s.ports[key]
	if u == nil {
		u = &portUse{term: *t, name: name, protocol: protocol, counts: map[uint16]int{}, changed: true}
		for _, p := range s.podsOf(t) {
			u.add(p, 1)
		}
		s.ports[key] = u
	}
	u.used = true
	return u
}
