package policy

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
)

// compiler is the state of one call of Compile.
type compiler struct {
	*index
	out    *Ruleset
	chains map[string]string // names of finished chains, by the key of selecting and portNames
	byPeer map[string][]rule // egress rules with port numbers in place of names, by key of their source
}

// sources are the policies of a cluster in the common form, in their order of precedence.
type sources struct {
	admin, baseline []*source
	policies        map[string][]*source // by namespace
}

// Compile returns the decisions for all local pods of a cluster. It never fails: invalid parts of policies deny, and are listed
// in Problems.
// See docs/adr/0019-policies.md.
func Compile(cluster *Cluster) *Ruleset {
	c := &compiler{
		index: newIndex(cluster),
		out: &Ruleset{
			Sets: map[string]Set{}, Chains: map[string]Chain{}, Pods: map[netip.Addr]PodChains{}, Links: map[string]Link{},
		},
		chains: map[string]string{},
		byPeer: map[string][]rule{},
	}
	from := c.read()
	for _, p := range cluster.Pods {
		if !p.Local {
			continue
		}
		c.addPod(p, PodChains{Ingress: c.podChain(from, p, Ingress), Egress: c.podChain(from, p, Egress)})
	}
	if len(cluster.Policies)+len(cluster.Admin)+len(cluster.Baseline) > 0 {
		c.addLinks()
	}
	c.out.prune()
	slices.SortFunc(c.out.Problems, func(a, b Problem) int {
		return cmp.Or(strings.Compare(a.Kind, b.Kind), strings.Compare(a.Namespace, b.Namespace),
			strings.Compare(a.Name, b.Name), strings.Compare(a.Message, b.Message))
	})
	c.out.Problems = slices.Compact(c.out.Problems)
	return c.out
}

// addPod adds the chains of a local pod.
func (c *compiler) addPod(p *Pod, chains PodChains) {
	if chains == (PodChains{}) {
		return
	}
	for _, ip := range p.addresses() {
		c.out.Pods[ip] = chains
	}
	if p.LinkLocal.IsValid() && !p.hasIPv6() { // its policies name no IPv6 address, so no rule of theirs can allow this one
		c.out.Pods[p.LinkLocal] = PodChains{Ingress: c.denied(chains.Ingress, Ingress), Egress: c.denied(chains.Egress, Egress)}
	}
}

// denied returns the chain that denies everything in a direction, in place of a chain of a pod; empty in place of none.
func (c *compiler) denied(chain string, d Direction) string {
	if chain == "" {
		return ""
	}
	return c.add(Chain{Direction: d, End: Target{Action: Deny}})
}

// addLinks adds the ports of local pods, and the addresses of all pods.
func (c *compiler) addLinks() {
	for _, p := range c.Pods {
		addrs := p.addresses()
		c.out.Addrs = append(c.out.Addrs, addrs...)
		if p.Local && p.Link != "" && len(addrs) > 0 {
			c.out.Links[p.Link] = Link{Addrs: slices.SortedFunc(slices.Values(addrs), netip.Addr.Compare), Chains: c.out.Pods[addrs[0]]}
		}
	}
	slices.SortFunc(c.out.Addrs, netip.Addr.Compare)
	c.out.Addrs = slices.Compact(c.out.Addrs)
}

// prune removes chains and sets that no pod reaches.
func (r *Ruleset) prune() {
	chains, sets := map[string]Chain{}, map[string]Set{}
	var keep func(name string)
	keep = func(name string) {
		if _, done := chains[name]; done || name == "" {
			return
		}
		chain := r.Chains[name]
		chains[name] = chain
		for _, p := range chain.Ports {
			keep(p.Chain)
		}
		for _, rule := range chain.Rules {
			keep(rule.Target.Chain)
			if rule.Set != "" {
				sets[rule.Set] = r.Sets[rule.Set]
			}
		}
		keep(chain.End.Chain)
	}
	for _, p := range r.Pods {
		keep(p.Ingress)
		keep(p.Egress)
	}
	r.Chains, r.Sets = chains, sets
}

func (c *compiler) problemOf(kind string, meta *metav1.ObjectMeta) func(string, ...any) {
	return func(format string, args ...any) {
		c.out.Problems = append(c.out.Problems, Problem{
			Kind: kind, Namespace: meta.Namespace, Name: meta.Name, UID: string(meta.UID), Message: fmt.Sprintf(format, args...),
		})
	}
}

// read converts all policies to the common form.
func (c *compiler) read() sources {
	s := sources{policies: map[string][]*source{}}
	for _, np := range slices.SortedFunc(slices.Values(c.Policies), func(a, b *networkingv1.NetworkPolicy) int {
		return strings.Compare(a.Name, b.Name)
	}) {
		read := c.readPolicy(np)
		c.checkPortNames(read)
		s.policies[np.Namespace] = append(s.policies[np.Namespace], read)
	}
	for _, p := range slices.SortedFunc(slices.Values(c.Admin), func(a, b *v1alpha1.AdminNetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Spec.Priority, b.Spec.Priority), strings.Compare(a.Name, b.Name))
	}) {
		s.admin = append(s.admin, c.readAdmin(p))
	}
	baseline := slices.SortedFunc(slices.Values(c.Baseline), func(a, b *v1alpha1.BaselineAdminNetworkPolicy) int {
		return strings.Compare(a.Name, b.Name)
	})
	for i, p := range baseline {
		if i > 0 {
			c.problemOf("BaselineAdminNetworkPolicy", &p.ObjectMeta)("only one can be in force, and that is %s", baseline[0].Name)
			continue
		}
		s.baseline = append(s.baseline, c.readBaseline(p))
	}
	return s
}

// tier is a list of rules, of which the first match decides; end is the verdict if none matches.
type tier struct {
	rules []rule
	end   verdict
}

// podChain returns the name of the chain for connections of a pod in a direction, empty if no policy restricts them.
func (c *compiler) podChain(from sources, p *Pod, d Direction) string {
	selected, key := c.selecting(from, p, d)
	if len(selected) == 0 {
		return ""
	}
	if d == Ingress {
		key += c.portNames(selected, p)
	}
	if name, ok := c.chains[key]; ok {
		return name
	}
	var tiers []tier
	for _, t := range selected {
		rules := []rule{}
		for _, s := range t.sources {
			rules = append(rules, c.rules(s, p, d)...)
		}
		tiers = append(tiers, tier{rules, t.end})
	}
	name := c.build(tiers, d)
	c.chains[key] = name
	return name
}

// rules returns a source's rules with port numbers in place of names.
func (c *compiler) rules(s *source, p *Pod, d Direction) []rule {
	if d == Ingress {
		return forPod(s.rules[d], p)
	}
	key := s.keys[d]
	if _, ok := c.byPeer[key]; !ok {
		c.byPeer[key] = c.forPeers(s.rules[d])
	}
	return c.byPeer[key]
}

// selectedTier has the policies of a tier that select a pod.
type selectedTier struct {
	sources []*source
	end     verdict
}

// selecting returns the tiers with policies for a pod in a direction, and a key that is equal for equal tiers.
func (c *compiler) selecting(from sources, p *Pod, d Direction) (tiers []selectedTier, key string) {
	var text strings.Builder
	text.WriteString(d.String())
	for _, t := range []struct {
		all []*source
		end verdict
	}{{from.admin, pass}, {from.policies[p.Namespace], deny}, {from.baseline, allow}} {
		var found []*source
		for _, s := range t.all {
			if rules, ok := s.rules[d]; ok && (t.end == deny || len(rules) > 0) && c.holds(s.subject, p) {
				found = append(found, s)
				fmt.Fprintf(&text, "\x00%d %s", t.end, s.keys[d])
			}
		}
		if len(found) > 0 {
			tiers = append(tiers, selectedTier{found, t.end})
		}
	}
	return tiers, text.String()
}

// portNames returns the numbers that a pod uses for the port names in the tiers, as a part of a key.
func (c *compiler) portNames(tiers []selectedTier, p *Pod) string {
	text := ""
	for _, t := range tiers {
		for _, s := range t.sources {
			for _, r := range s.rules[Ingress] {
				for _, port := range r.ports {
					if port.name == "" {
						continue
					}
					numbers := p.numbers(port.name, port.protocol)
					text += fmt.Sprintf("\x00%s %s %d", port.protocol, port.name, numbers)
				}
			}
		}
	}
	return text
}

// checkPortNames reports port names in a policy that none of the pods in question has. It checks only policies that select pods
// of this node.
func (c *compiler) checkPortNames(s *source) {
	named := slices.ContainsFunc(s.rules[Ingress], rule.named) || slices.ContainsFunc(s.rules[Egress], rule.named)
	if !named || !slices.ContainsFunc(c.pods(s.subject), func(p *Pod) bool { return p.Local }) {
		return
	}
	for i, r := range s.rules[Ingress] {
		for _, p := range r.ports {
			if p.name != "" && len(c.numbers(s.subject, p.name, p.protocol)) == 0 {
				s.problem("spec.ingress[%d]: no pod that the policy selects has a port named %q (%s); it allows nothing", i, p.name, p.protocol)
			}
		}
	}
	for i, r := range s.rules[Egress] {
		for _, p := range r.ports {
			if p.name != "" && len(c.byNumber(r, p)) == 0 {
				s.problem("spec.egress[%d]: no pod that the rule allows has a port named %q (%s); it allows nothing", i, p.name, p.protocol)
			}
		}
	}
}

// build adds the chain for the tiers, and the chains that it refers to, and returns its name.
func (c *compiler) build(tiers []tier, d Direction) string {
	lists := make([][]rule, len(tiers))
	for i, t := range tiers {
		lists[i] = t.rules
	}
	chain := c.decide(tiers, class{}, d) // protocols without ports
	rest := c.add(chain)
	for _, cl := range classes(lists...) {
		name := c.add(c.decide(tiers, cl, d))
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
	return c.add(chain)
}

// decide returns the chain for one class of connections: the first tier decides, or passes them to the next.
func (c *compiler) decide(tiers []tier, cl class, d Direction) Chain {
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
			return c.next(tiers[1:], cl, d)
		}
	}
	chain.End = target(t.end)
	for _, run := range runs(t.rules, cl) {
		if run.peers == nil { // all addresses: the rules after it never match
			chain.End = target(run.verdict)
			break
		}
		for _, set := range c.sets(run.peers) {
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
func (c *compiler) next(tiers []tier, cl class, d Direction) Target {
	chain := c.decide(tiers, cl, d)
	if len(chain.Rules) == 0 {
		return chain.End
	}
	return Target{Action: Goto, Chain: c.add(chain)}
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

// sets returns the names of sets that together hold the addresses of the terms.
func (c *compiler) sets(terms []term) (names []string) {
	text, terms := definition(terms)
	if len(terms) > maxSets {
		return []string{c.set(text, terms)}
	}
	for _, t := range terms {
		names = append(names, c.set(t.key, []term{t}))
	}
	return names
}

func (c *compiler) set(definition string, terms []term) string {
	name := digest("s", definition)
	if _, ok := c.out.Sets[name]; !ok {
		c.out.Sets[name] = c.union(terms)
	}
	return name
}

// add adds a chain to the ruleset and returns its name.
func (c *compiler) add(chain Chain) string {
	name := digest("c", fmt.Sprint(chain))
	c.out.Chains[name] = chain
	return name
}

// digest returns prefix followed by 60 bits of the SHA-256 of a text.
func digest(prefix, text string) string {
	sum := sha256.Sum256([]byte(text))
	return prefix + hex.EncodeToString(sum[:])[:15]
}
