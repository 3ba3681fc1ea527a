package policy

import (
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
	"sigs.k8s.io/network-policy-api/apis/v1beta1"
)

// readCluster reads a ClusterNetworkPolicy. As its API demands, a rule with a part that is not understood fails closed: one that accepts
// matches nothing, any other denies everything.
func readCluster(p *v1beta1.ClusterNetworkPolicy) *source {
	tier := pass
	if p.Spec.Tier == v1beta1.BaselineTier {
		tier = allow
	}
	s := newSource("ClusterNetworkPolicy", &p.ObjectMeta, tier, p.Spec.Priority)
	if p.Spec.Tier != v1beta1.AdminTier && p.Spec.Tier != v1beta1.BaselineTier {
		s.problem("spec.tier: %q is unknown; the policy counts as one of the tier Admin", p.Spec.Tier)
	}
	var err error
	if s.subject, err = clusterPods(p.Spec.Subject.Namespaces, p.Spec.Subject.Pods); err != nil {
		s.problem("spec.subject: %v; the policy is ignored", err)
		s.subject = newSpaces(everything, nothing)
		return s.seal()
	}
	for i, r := range p.Spec.Ingress {
		s.addClusterRule(Ingress, fmt.Sprintf("spec.ingress[%d]", i), clusterRule{r.Action, clusterSources(r.From), r.Protocols})
	}
	for i, r := range p.Spec.Egress {
		s.addClusterRule(Egress, fmt.Sprintf("spec.egress[%d]", i), clusterRule{r.Action, r.To, r.Protocols})
	}
	return s.seal()
}

// clusterRule is a rule of either direction. The peers of ingress rules are the pods among those of egress rules.
type clusterRule struct {
	action    v1beta1.ClusterNetworkPolicyRuleAction
	peers     []v1beta1.ClusterNetworkPolicyEgressPeer
	protocols []v1beta1.ClusterNetworkPolicyProtocol
}

func clusterSources(from []v1beta1.ClusterNetworkPolicyIngressPeer) []v1beta1.ClusterNetworkPolicyEgressPeer {
	peers := make([]v1beta1.ClusterNetworkPolicyEgressPeer, len(from))
	for i, f := range from {
		peers[i] = v1beta1.ClusterNetworkPolicyEgressPeer{Namespaces: f.Namespaces, Pods: f.Pods}
	}
	return peers
}

// clusterPods returns the term for the pods that a policy names; its pods are those of the predecessors of the kind.
func clusterPods(namespaces *metav1.LabelSelector, pods *v1beta1.NamespacedPod) (podTerm, error) {
	return namespacedPods(namespaces, (*v1alpha1.NamespacedPod)(pods))
}

// addClusterRule reads one rule.
func (s *source) addClusterRule(d Direction, path string, from clusterRule) {
	r := rule{}
	switch from.action {
	case v1beta1.ClusterNetworkPolicyRuleActionAccept:
		r.verdict = allow
	case v1beta1.ClusterNetworkPolicyRuleActionDeny:
		r.verdict = deny
	case v1beta1.ClusterNetworkPolicyRuleActionPass:
		r.verdict = pass
	default:
		s.problem("%s.action: %q is unknown; the rule denies", path, from.action)
		r.verdict = deny
	}
	closed := false
	fail := func(part string, i int, err error) {
		closed = true
		effect := "denies everything"
		if r.verdict == allow {
			effect = "accepts nothing"
		}
		s.problem("%s.%s[%d]: %v; the rule %s", path, part, i, err, effect)
	}
	field := "from"
	if d == Egress {
		field = "to"
	}
	for i, p := range from.peers {
		terms, err := clusterPeer(p, r.verdict)
		if err != nil {
			fail(field, i, err)
		}
		r.peers = append(r.peers, terms...)
	}
	r.never = len(r.peers) == 0
	for i, p := range from.protocols {
		ports, err := clusterPorts(p)
		if err != nil {
			fail("protocols", i, err)
		}
		r.ports = append(r.ports, ports...)
	}
	switch {
	case closed && r.verdict == allow:
		r = rule{verdict: allow, never: true}
	case closed:
		r = rule{verdict: deny}
	}
	s.rules[d] = append(s.rules[d], r)
}

// clusterPeer returns the terms of a peer. It has the fields of a peer of the predecessors of the kind.
func clusterPeer(p v1beta1.ClusterNetworkPolicyEgressPeer, v verdict) ([]term, error) {
	peer := adminPeer{namespaces: p.Namespaces, pods: (*v1alpha1.NamespacedPod)(p.Pods), nodes: p.Nodes}
	for _, n := range p.Networks {
		peer.networks = append(peer.networks, v1alpha1.CIDR(n))
	}
	for _, d := range p.DomainNames {
		peer.domains = append(peer.domains, v1alpha1.DomainName(d))
	}
	return peer.terms(v)
}

// clusterPorts returns the ports that p selects: all of a protocol without a destination port; a port by name in each protocol.
func clusterPorts(p v1beta1.ClusterNetworkPolicyProtocol) (out []portMatch, err error) {
	add := func(protocol corev1.Protocol, port *v1beta1.Port) {
		m := portMatch{protocol: protocol, last: maxPort}
		switch {
		case port == nil:
		case port.Range != nil:
			err = m.setRange(port.Range.Start, port.Range.End)
		default:
			err = m.setRange(port.Number, port.Number)
		}
		out = append(out, m)
	}
	switch {
	case p.TCP != nil:
		add(corev1.ProtocolTCP, p.TCP.DestinationPort)
	case p.UDP != nil:
		add(corev1.ProtocolUDP, p.UDP.DestinationPort)
	case p.SCTP != nil:
		add(corev1.ProtocolSCTP, p.SCTP.DestinationPort)
	case p.DestinationNamedPort != "":
		for _, protocol := range protocols {
			out = append(out, portMatch{protocol: protocol, name: p.DestinationNamedPort})
		}
	default:
		return nil, fmt.Errorf("no protocol is set")
	}
	if err != nil {
		return nil, err
	}
	return out, nil
}
