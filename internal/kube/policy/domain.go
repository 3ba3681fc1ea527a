package policy

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
)

// Domain is a pattern of DNS names: a name in lower case without a dot at its end, or "*." and such a name. The star stands for one or
// more labels.
type Domain string

// anyLabels begins a Domain with a wildcard.
const anyLabels = "*."

// Limits of DNS names (RFC 1035, section 2.3.4; without the dot at the end).
const (
	maxName  = 253
	maxLabel = 63
)

// domainForm is the form that the API requires of a domain name.
var domainForm = regexp.MustCompile(`^(\*\.)?([a-z0-9]([-a-z0-9_]*[a-z0-9])?\.)+[a-z0-9]([-a-z0-9_]*[a-z0-9])?$`)

// ParseDomain returns the Domain of a text in the form of the API: in any case, with or without a dot at its end.
func ParseDomain(text string) (Domain, error) {
	d := strings.TrimSuffix(strings.ToLower(text), ".")
	long := func(label string) bool { return len(label) > maxLabel }
	if len(d) > maxName || !domainForm.MatchString(d) || slices.ContainsFunc(strings.Split(d, "."), long) {
		return "", fmt.Errorf("%q is not a domain name", text)
	}
	return Domain(d), nil
}

// Matches reports whether the pattern stands for a name, which is in lower case and without a dot at its end.
func (d Domain) Matches(name string) bool {
	parent, wild := strings.CutPrefix(string(d), anyLabels)
	if !wild {
		return name == string(d)
	}
	labels, ok := strings.CutSuffix(name, "."+parent)
	return ok && labels != ""
}

// domainTerms returns the terms of the domain names of an egress rule, up to the first invalid one. The API allows them only in rules
// that allow.
func domainTerms(names []v1alpha1.DomainName, v verdict) (terms []term, err error) {
	if v != allow {
		return nil, fmt.Errorf("domainNames: only rules that allow may have them")
	}
	for _, n := range names {
		d, err := ParseDomain(string(n))
		if err != nil {
			return terms, fmt.Errorf("domainNames: %w", err)
		}
		terms = append(terms, newDomain(d))
	}
	return terms, nil
}

func newDomain(d Domain) term { return term{key: "domain " + string(d), domain: d} }

// resolversTerm selects the pods of the cluster's DNS, by the label that they have in all common distributions.
var resolversTerm = newPodTerm(podTerm{
	namespace: metav1.NamespaceSystem, pods: labels.SelectorFromSet(labels.Set{"k8s-app": "kube-dns"}),
})

// SetDomain replaces the addresses that a domain stands for. They count also for policies that are set later.
func (s *State) SetDomain(d Domain, addrs []netip.Addr) {
	before := s.domains[d]
	if len(addrs) == 0 {
		delete(s.domains, d)
	} else {
		s.domains[d] = slices.Clone(addrs)
	}
	for _, set := range s.sets {
		for _, t := range set.terms {
			if t.domain == d {
				set.hosts.add(before, -1)
				set.hosts.add(addrs, 1)
			}
		}
	}
}

// Domains returns the domains that rules of local pods have had since the last Update, sorted.
func (s *State) Domains() (out []Domain) {
	for _, set := range s.sets {
		for _, t := range set.terms {
			if t.domain != "" {
				out = append(out, t.domain)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// DomainProblems returns a problem for each policy with a rule by one of the domains, which have too many addresses; sorted.
func (s *State) DomainProblems(full []Domain) (out []Problem) {
	if len(full) == 0 {
		return nil
	}
	for _, from := range s.known {
		for _, r := range from.rules[Egress] {
			for _, t := range r.peers {
				if slices.Contains(full, t.domain) {
					out = append(out, from.newProblem("domainNames: %q has too many addresses; the oldest of them are closed", t.domain))
				}
			}
		}
	}
	slices.SortFunc(out, Problem.compare)
	return slices.Compact(out)
}

// Askers returns Ruleset.Askers as of the last Update. The caller must not change them.
func (s *State) Askers() []netip.Addr { return s.rules.Askers }

// addAskers adds the addresses of the pods that rules by domain name apply to, and the set of their resolvers. The chains must be
// complete.
func (s *State) addAskers(rules *Ruleset) {
	known := map[string]bool{} // whether a chain leads to such a rule
	var byDomain func(name string) bool
	byDomain = func(name string) bool {
		if found, ok := known[name]; ok || name == "" {
			return found
		}
		chain := rules.Chains[name]
		found := byDomain(chain.End.Chain)
		for _, p := range chain.Ports {
			found = byDomain(p.Chain) || found
		}
		for _, r := range chain.Rules {
			found = byDomain(r.Target.Chain) || r.Set != "" && s.sets[r.Set].byDomain() || found
		}
		known[name] = found
		return found
	}
	for ip, chains := range rules.Pods {
		if byDomain(chains.Egress) {
			rules.Askers = append(rules.Askers, ip)
		}
	}
	if len(rules.Askers) > 0 {
		slices.SortFunc(rules.Askers, netip.Addr.Compare)
		rules.Resolvers = s.addSet(resolversTerm.key, []term{resolversTerm})
		rules.Sets[rules.Resolvers] = Set{}
	}
}

// byDomain reports whether a term of the set is a domain.
func (s *liveSet) byDomain() bool {
	return slices.ContainsFunc(s.terms, func(t term) bool { return t.domain != "" })
}
