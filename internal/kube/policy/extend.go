package policy

import (
	"maps"
	"net/netip"
	"slices"
)

// extend brings the rules up to the local pods that have changed, and adds what has changed to c. It reports false if that takes all pods:
// if policies, namespaces or the numbers of named ports have changed, if a policy has domain names, or if pods share an address or a port.
// Then the pods are still to be chosen.
func (s *State) extend(c *Change) (ok bool) {
	if s.all || len(s.rules.Askers) > 0 || len(s.domains) > 0 {
		return false
	}
	if len(s.dirty) == 0 {
		return true
	}
	next := *s.rules
	next.Pods, next.Links = maps.Clone(next.Pods), maps.Clone(next.Links)
	if !s.holdsAll(&next) {
		return false
	}
	e := extension{state: s, rules: &next, pods: map[netip.Addr]bool{}, links: map[string]bool{}}
	problems := false
	for key := range s.dirty {
		e.note(s.held[key])
		for _, ip := range s.held[key].pods {
			delete(next.Pods, ip)
		}
		delete(next.Links, s.held[key].link)
		delete(s.held, key)
		before := s.named[key]
		s.chooseFor(key)
		problems = problems || !maps.Equal(before, s.named[key])
	}
	for key := range s.dirty {
		if p := s.local[key]; p != nil {
			s.addPod(&next, p, s.own[key])
			e.note(s.held[key])
			e.keep(s.held[key])
		}
	}
	if !s.holdsAll(&next) || slices.ContainsFunc(e.sets, func(name string) bool { return s.sets[name].byDomain() }) {
		return false
	}
	if problems {
		next.Problems = s.problems()
	}
	s.settlePorts()
	clear(s.dirty)
	s.stale = true
	if x := e.differences(); x != nil {
		c.Rules, c.Extension = &next, x
	}
	s.rules = &next
	return true
}

// holdsAll reports whether each entry of rules is that of one pod.
func (s *State) holdsAll(rules *Ruleset) bool {
	pods, links := 0, 0
	for _, h := range s.held {
		pods += len(h.pods)
		if h.link != "" {
			links++
		}
	}
	return pods == len(rules.Pods) && links == len(rules.Links)
}

// extension collects what changes in the rules.
type extension struct {
	state  *State
	rules  *Ruleset
	copied bool // the chains and sets of rules are its own
	// Pods and links that may have changed, and new sets.
	pods  map[netip.Addr]bool
	links map[string]bool
	sets  []string
}

// note notes what a pod has, or had.
func (e *extension) note(h held) {
	for _, ip := range h.pods {
		e.pods[ip] = true
	}
	if h.link != "" {
		e.links[h.link] = true
	}
}

// keep adds the chains of a pod that are not there, with the sets that they refer to.
func (e *extension) keep(h held) {
	for _, ip := range h.pods {
		for _, chain := range []string{e.rules.Pods[ip].Ingress, e.rules.Pods[ip].Egress} {
			if _, there := e.rules.Chains[chain]; there || chain == "" {
				continue
			}
			if !e.copied {
				e.rules.Chains, e.rules.Sets, e.copied = maps.Clone(e.rules.Chains), maps.Clone(e.rules.Sets), true
			}
			e.state.keep(e.rules, chain, &e.sets)
		}
	}
}

// differences returns what is different from the rules before; nil: nothing.
func (e *extension) differences() *Extension {
	before := e.state.rules
	x := &Extension{Sets: e.sets}
	for ip := range e.pods {
		old, had := before.Pods[ip]
		if now, has := e.rules.Pods[ip]; had != has || old != now {
			x.Pods = append(x.Pods, ip)
		}
	}
	for name := range e.links {
		old, had := before.Links[name]
		if now, has := e.rules.Links[name]; had != has || !old.equal(now) {
			x.Links = append(x.Links, name)
		}
	}
	if len(x.Pods)+len(x.Links) == 0 {
		return nil
	}
	slices.SortFunc(x.Pods, netip.Addr.Compare)
	slices.Sort(x.Links)
	slices.Sort(x.Sets)
	return x
}
