package policy

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
)

// Compile returns the decisions for all local pods of a cluster. It never fails: invalid parts of policies deny, and are listed
// in Problems.
// See docs/adr/0019-policies.md.
func Compile(c *Cluster) *Ruleset {
	s := NewState()
	s.SetNamespaces(c.Namespaces)
	s.SetNodes(c.Nodes)
	s.SetPolicies(c.Policies)
	for _, p := range c.Pods {
		s.SetPod(p)
	}
	s.Update()
	for _, d := range s.Domains() {
		var addrs []netip.Addr
		for name, resolved := range c.Names {
			if d.Matches(name) {
				addrs = append(addrs, resolved...)
			}
		}
		s.SetDomain(d, addrs)
	}
	s.Update()
	return s.Ruleset()
}

// denied returns the chain that denies everything in a direction, in place of a chain of a pod; empty in place of none.
func (s *State) denied(chain string, d Direction) string {
	if chain == "" {
		return ""
	}
	return s.addChain(Chain{Direction: d, End: Target{Action: Deny}})
}

// tier is a list of rules, of which the first match decides; end is the verdict if none matches.
type tier struct {
	rules []rule
	end   verdict
}

// podChain returns the name of the chain for connections of a pod in a direction, empty if no policy restricts them.
func (s *State) podChain(p *Pod, d Direction) string {
	selected, key := s.selecting(p, d)
	if len(selected) == 0 {
		return ""
	}
	if name, ok := s.built[key]; ok {
		return name
	}
	var tiers []tier
	for _, t := range selected {
		rules := []rule{}
		for _, from := range t.sources {
			rules = append(rules, s.rulesOf(from, p, d)...)
		}
		tiers = append(tiers, tier{rules, t.end})
	}
	name := s.build(tiers, d)
	s.built[key] = name
	return name
}

// rulesOf returns a source's rules with port numbers in place of names.
func (s *State) rulesOf(from *source, p *Pod, d Direction) []rule {
	if d == Ingress {
		return forPod(from.rules[d], p)
	}
	if !from.named[d] {
		return from.rules[d]
	}
	key := from.keys[d]
	if _, ok := s.byPeer[key]; !ok {
		s.byPeer[key] = s.forPeers(from.rules[d])
	}
	return s.byPeer[key]
}

// selectedTier has the policies of a tier that select a pod.
type selectedTier struct {
	sources []*source
	end     verdict
}

// selecting returns the tiers with policies for a pod in a direction, and a key that is equal for equal chains.
func (s *State) selecting(p *Pod, d Direction) (tiers []selectedTier, key string) {
	var text strings.Builder
	text.WriteString(d.String())
	for _, t := range []struct {
		all []*source
		end verdict
	}{{s.admin, pass}, {s.policies[p.Namespace], deny}, {s.baseline, allow}} {
		var found []*source
		for _, from := range t.all {
			if rules, ok := from.rules[d]; ok && (t.end == deny || len(rules) > 0) && s.holds(&from.subject, p) {
				found = append(found, from)
				s.noteNamed(p, from)
				fmt.Fprintf(&text, "\x00%d %s", t.end, from.keys[d])
				if from.named[d] {
					s.writePorts(&text, from, p, d)
				}
			}
		}
		if len(found) > 0 {
			tiers = append(tiers, selectedTier{found, t.end})
		}
	}
	return tiers, text.String()
}

// noteNamed notes a policy that selects a local pod, if it has ports by name.
func (s *State) noteNamed(p *Pod, from *source) {
	if !from.named[Ingress] && !from.named[Egress] {
		return
	}
	if s.named[p.key()] == nil {
		s.named[p.key()] = map[*source]bool{}
	}
	s.named[p.key()][from] = true
}

// writePorts writes the numbers that the port names in a source stand for, as a part of a key: those of the pod for ingress, those of
// the peers for egress.
func (s *State) writePorts(text *strings.Builder, from *source, p *Pod, d Direction) {
	for _, r := range from.rules[d] {
		for _, port := range r.ports {
			switch {
			case port.name == "":
			case d == Ingress:
				fmt.Fprintf(text, "\x00%s %s %d", port.protocol, port.name, p.numbers(port.name, port.protocol))
			default:
				for _, t := range namedPeers(r) {
					fmt.Fprintf(text, "\x00%d", s.use(t, port.name, string(port.protocol)).numbers())
				}
			}
		}
	}
}

// build adds the chain for the tiers, and the chains that it refers to, and returns its name.
func (s *State) build(tiers []tier, d Direction) string {
	lists := make([][]rule, len(tiers))
	for i, t := range tiers {
		lists[i] = t.rules
	}
	chain := s.decide(tiers, class{}, d) // protocols without ports
	rest := s.addChain(chain)
	for _, cl := range classes(lists...) {
		name := s.addChain(s.decide(tiers, cl, d))
		last := len(chain.Ports) - 1
		switch {
		case name == rest:
		case last >= 0 && chain.Ports[last].Chain == name && chain.Ports[last].Protocol == cl.protocol && chain.Ports[last].Last+1 == cl.first:
			chain.Ports[last].Last = cl.last
		default:
			chain.Ports = append(chain.Ports, PortJump{Protocol: cl.protocol, First: cl.first, Last: cl.last, Chain: name})
		}
	}
	if len(chain.Ports) == 0 {
		return rest
	}
	return s.addChain(chain)
}

// decide returns the chain for one class of connections: the first tier decides, or passes them to the next.
func (s *State) decide(tiers []tier, cl class, d Direction) Chain {
	chain := Chain{Direction: d, End: Target{Action: Allow}}
	if len(tiers) == 0 {
		return chain
	}
	t := tiers[0]
	target := func(v verdict) Target {
		switch v {
		case allow:
			return Target{Action: Allow}
		case deny:
			return Target{Action: Deny}
		default:
			return s.next(tiers[1:], cl, d)
		}
	}
	chain.End = target(t.end)
	for _, run := range runs(t.rules, cl) {
		if run.peers == nil { // all addresses: the rules after it never match
			chain.End = target(run.verdict)
			break
		}
		for _, set := range s.setsOf(run.peers) {
			chain.Rules = append(chain.Rules, Rule{Set: set, Target: target(run.verdict)})
		}
	}
	for n := len(chain.Rules); n > 0 && chain.Rules[n-1].Target == chain.End; n = len(chain.Rules) {
		chain.Rules = chain.Rules[:n-1] // End decides the same
	}
	if len(chain.Rules) == 0 {
		chain.Rules = nil
	}
	return chain
}

// next returns the target for connections that a tier passes to the following tiers.
func (s *State) next(tiers []tier, cl class, d Direction) Target {
	chain := s.decide(tiers, cl, d)
	if len(chain.Rules) == 0 {
		return chain.End
	}
	return Target{Action: Goto, Chain: s.addChain(chain)}
}

// run combines consecutive rules with one verdict.
type run struct {
	peers   []term // nil: all addresses
	verdict verdict
}

// runs returns the rules for a class of connections in their order, with consecutive rules of one verdict combined.
func runs(rules []rule, cl class) (out []run) {
	for _, r := range rules {
		if !r.covers(cl) {
			continue
		}
		last := len(out) - 1
		if last < 0 || out[last].verdict != r.verdict {
			out, last = append(out, run{peers: []term{}, verdict: r.verdict}), last+1
		}
		if len(r.peers) == 0 {
			out[last].peers = nil // nothing after it matters
			return out
		}
		out[last].peers = append(out[last].peers, r.peers...)
	}
	return out
}

// maxSets bounds the number of set lookups for one decision. Up to that number each term has a set of its own, which other
// chains share, so a term that many policies use is in memory once. For more terms, one set holds the addresses of all.
const maxSets = 8

// setsOf returns the names of sets that together hold the addresses of the terms.
func (s *State) setsOf(terms []term) (names []string) {
	_, terms = definition(terms)
	if len(terms) > maxSets {
		return s.unions(terms)
	}
	for _, t := range terms {
		names = append(names, s.addSet(t.key, []term{t}))
	}
	return names
}

// unions returns the names of a set with the addresses of all terms but blocks, and of one with those of the blocks. A set with intervals
// costs more at each change, and pods and domains change most often.
func (s *State) unions(terms []term) (names []string) {
	var hosts, blocks []term
	for _, t := range terms {
		if t.block != nil {
			blocks = append(blocks, t)
		} else {
			hosts = append(hosts, t)
		}
	}
	for _, part := range [][]term{hosts, blocks} {
		if len(part) > 0 {
			text, part := definition(part)
			names = append(names, s.addSet(text, part))
		}
	}
	return names
}

// addChain adds a chain and returns its name.
func (s *State) addChain(chain Chain) string {
	name := digest("c", fmt.Sprint(chain))
	s.chains[name] = chain
	return name
}

// digest returns prefix followed by 60 bits of the SHA-256 of a text.
func digest(prefix, text string) string {
	sum := sha256.Sum256([]byte(text))
	return prefix + hex.EncodeToString(sum[:])[:15]
}
