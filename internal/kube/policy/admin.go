package policy

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
)

// adminRule is a rule of either administrator kind.
type adminRule struct {
	action string
	peers  []adminPeer
	ports  *[]v1alpha1.AdminNetworkPolicyPort
}

// readAdmin reads an AdminNetworkPolicy.
func readAdmin(p *v1alpha1.AdminNetworkPolicy) *source {
	rules := map[Direction][]adminRule{}
	for _, r := range p.Spec.Ingress {
		rules[Ingress] = append(rules[Ingress], adminRule{string(r.Action), adminIngress(r.From), r.Ports})
	}
	for _, r := range p.Spec.Egress {
		peers := make([]adminPeer, len(r.To))
		for i, t := range r.To {
			peers[i] = adminPeer{t.Namespaces, t.Pods, t.Nodes, t.Networks, t.DomainNames}
		}
		rules[Egress] = append(rules[Egress], adminRule{string(r.Action), peers, r.Ports})
	}
	return newAdmin(newSource("AdminNetworkPolicy", &p.ObjectMeta, pass, p.Spec.Priority), p.Spec.Subject, rules)
}

// readBaseline reads a BaselineAdminNetworkPolicy.
func readBaseline(p *v1alpha1.BaselineAdminNetworkPolicy) *source {
	rules := map[Direction][]adminRule{}
	for _, r := range p.Spec.Ingress {
		rules[Ingress] = append(rules[Ingress], adminRule{string(r.Action), adminIngress(r.From), r.Ports})
	}
	for _, r := range p.Spec.Egress {
		peers := make([]adminPeer, len(r.To))
		for i, t := range r.To {
			peers[i] = adminPeer{t.Namespaces, t.Pods, t.Nodes, t.Networks, nil}
		}
		rules[Egress] = append(rules[Egress], adminRule{string(r.Action), peers, r.Ports})
	}
	return newAdmin(newSource("BaselineAdminNetworkPolicy", &p.ObjectMeta, allow, baselinePriority), p.Spec.Subject, rules)
}

// adminPeer is a peer in a rule of either administrator kind. Exactly one field is set.
type adminPeer struct {
	namespaces *metav1.LabelSelector
	pods       *v1alpha1.NamespacedPod
	nodes      *metav1.LabelSelector
	networks   []v1alpha1.CIDR
	domains    []v1alpha1.DomainName
}

func adminIngress(from []v1alpha1.AdminNetworkPolicyIngressPeer) []adminPeer {
	peers := make([]adminPeer, len(from))
	for i, f := range from {
		peers[i] = adminPeer{namespaces: f.Namespaces, pods: f.Pods}
	}
	return peers
}

// newAdmin completes the source of an administrator policy.
func newAdmin(s *source, subject v1alpha1.AdminNetworkPolicySubject, rules map[Direction][]adminRule) *source {
	var err error
	if s.subject, err = namespacedPods(subject.Namespaces, subject.Pods); err != nil {
		// The subject is unknown: a policy that denies something to all pods would be worse than a reported problem.
		s.problem("spec.subject: %v; the policy is ignored", err)
		s.subject = newSpaces(everything, nothing)
		return s.seal()
	}
	for _, d := range []Direction{Ingress, Egress} {
		for i, r := range rules[d] {
			s.addRule(d, fmt.Sprintf("spec.%s[%d]", d, i), r)
		}
	}
	return s.seal()
}

func namespacedPods(namespaces *metav1.LabelSelector, pods *v1alpha1.NamespacedPod) (podTerm, error) {
	switch {
	case namespaces != nil && pods == nil:
		return spacesAndPods(namespaces, &metav1.LabelSelector{})
	case pods != nil && namespaces == nil:
		return spacesAndPods(&pods.NamespaceSelector, &pods.PodSelector)
	}
	return podTerm{}, fmt.Errorf("exactly one of namespaces and pods must be set")
}

// spacesAndPods returns the term for the pods that a selector matches, in the namespaces that another one matches.
func spacesAndPods(spaces, pods *metav1.LabelSelector) (podTerm, error) {
	s, err := metav1.LabelSelectorAsSelector(spaces)
	if err != nil {
		return podTerm{}, err
	}
	p, err := metav1.LabelSelectorAsSelector(pods)
	if err != nil {
		return podTerm{}, err
	}
	return newSpaces(s, p), nil
}

// addRule reads one rule. An invalid peer or port in a rule that denies matches everything, in other rules nothing.
func (s *source) addRule(d Direction, path string, from adminRule) {
	r := rule{}
	switch v1alpha1.AdminNetworkPolicyRuleAction(from.action) {
	case v1alpha1.AdminNetworkPolicyRuleActionAllow:
		r.verdict = allow
	case v1alpha1.AdminNetworkPolicyRuleActionDeny:
		r.verdict = deny
	case v1alpha1.AdminNetworkPolicyRuleActionPass:
		r.verdict = pass
	default:
		s.problem("%s.action: %q is unknown; the rule denies", path, from.action)
		r.verdict = deny
	}
	all := false
	for i, p := range from.peers {
		terms, err := p.terms(r.verdict)
		if err != nil {
			s.problem("%s: peer %d: %v; it matches %s", path, i, err, fallback(r.verdict))
			all = all || r.verdict == deny
		}
		r.peers = append(r.peers, terms...)
	}
	r.never = len(r.peers) == 0
	if all {
		r.peers, r.never = nil, false
	}
	if from.ports != nil {
		s.addPorts(&r, path, *from.ports)
	}
	s.rules[d] = append(s.rules[d], r)
}

func (s *source) addPorts(r *rule, path string, ports []v1alpha1.AdminNetworkPolicyPort) {
	all := false
	for i, p := range ports {
		matches, err := adminPort(p)
		if err != nil {
			s.problem("%s.ports[%d]: %v; it matches %s", path, i, err, fallback(r.verdict))
			all = all || r.verdict == deny
		}
		r.ports = append(r.ports, matches...)
	}
	r.never = r.never || len(ports) > 0 && len(r.ports) == 0 && !all
	if all {
		r.ports = nil
	}
}

// fallback describes what an invalid part of a rule matches.
func fallback(v verdict) string {
	if v == deny {
		return "everything"
	}
	return "nothing"
}

func (p adminPeer) terms(v verdict) (terms []term, err error) {
	if len(p.domains) > 0 {
		return domainTerms(p.domains, v)
	}
	if p.nodes != nil {
		nodes, err := metav1.LabelSelectorAsSelector(p.nodes)
		if err != nil {
			return nil, fmt.Errorf("nodes: %w", err)
		}
		return []term{newNodes(nodes)}, nil
	}
	if len(p.networks) > 0 {
		for _, n := range p.networks {
			t, err := ipBlock(string(n), nil)
			if err != nil {
				return terms, fmt.Errorf("networks: %w", err)
			}
			terms = append(terms, t)
		}
		return terms, nil
	}
	t, err := namespacedPods(p.namespaces, p.pods)
	if err != nil {
		return nil, err
	}
	return []term{newPodTerm(t)}, nil
}

// adminPort returns the ports that p selects. A port by name has no protocol and selects that name in each protocol.
func adminPort(p v1alpha1.AdminNetworkPolicyPort) ([]portMatch, error) {
	m := portMatch{protocol: corev1.ProtocolTCP, last: maxPort}
	var err error
	switch {
	case p.PortNumber != nil:
		m.protocol, err = p.PortNumber.Protocol, m.setRange(p.PortNumber.Port, p.PortNumber.Port)
	case p.PortRange != nil:
		m.protocol, err = p.PortRange.Protocol, m.setRange(p.PortRange.Start, p.PortRange.End)
	case p.NamedPort != nil:
		matches := make([]portMatch, len(protocols))
		for i, protocol := range protocols {
			matches[i] = portMatch{protocol: protocol, name: *p.NamedPort}
		}
		return matches, nil
	default:
		err = fmt.Errorf("no port is set")
	}
	if m.protocol == "" {
		m.protocol = corev1.ProtocolTCP
	}
	if err == nil && !slices.Contains(protocols[:], m.protocol) {
		err = fmt.Errorf("unknown protocol %q", m.protocol)
	}
	if err != nil {
		return nil, err
	}
	return []portMatch{m}, nil
}
