package policy

import (
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// readPolicy reads a NetworkPolicy. Invalid parts allow nothing, and are problems.
func readPolicy(np *networkingv1.NetworkPolicy) *source {
	s := newSource("NetworkPolicy", &np.ObjectMeta, deny, 0)
	pods, err := metav1.LabelSelectorAsSelector(&np.Spec.PodSelector)
	if err != nil {
		s.problem("spec.podSelector: %v; the policy denies its directions for all pods of the namespace", err)
		pods = everything
	}
	s.subject = podTerm{namespace: np.Namespace, pods: pods}
	for _, t := range policyTypes(np) {
		switch t {
		case networkingv1.PolicyTypeIngress:
			s.rules[Ingress] = []rule{}
		case networkingv1.PolicyTypeEgress:
			s.rules[Egress] = []rule{}
		default:
			s.problem("spec.policyTypes: %q is neither Ingress nor Egress and is ignored", t)
		}
	}
	if err != nil {
		return s.seal()
	}
	if _, ok := s.rules[Ingress]; ok {
		for i, r := range np.Spec.Ingress {
			s.rules[Ingress] = append(s.rules[Ingress], s.policyRule(fmt.Sprintf("spec.ingress[%d]", i), np.Namespace, "from", r.From, r.Ports))
		}
	}
	if _, ok := s.rules[Egress]; ok {
		for i, r := range np.Spec.Egress {
			s.rules[Egress] = append(s.rules[Egress], s.policyRule(fmt.Sprintf("spec.egress[%d]", i), np.Namespace, "to", r.To, r.Ports))
		}
	}
	return s.seal()
}

// policyTypes returns the directions that a policy restricts. The API server sets the field since Kubernetes 1.8.
func policyTypes(np *networkingv1.NetworkPolicy) []networkingv1.PolicyType {
	if len(np.Spec.PolicyTypes) > 0 {
		return np.Spec.PolicyTypes
	}
	types := []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	if len(np.Spec.Egress) > 0 {
		types = append(types, networkingv1.PolicyTypeEgress)
	}
	return types
}

// policyRule reads one rule of a NetworkPolicy in a namespace. path and field name its place in the object.
func (s *source) policyRule(path, namespace, field string,
	peers []networkingv1.NetworkPolicyPeer, ports []networkingv1.NetworkPolicyPort) rule {
	r := rule{verdict: allow}
	for i, p := range peers {
		t, err := policyPeer(namespace, p)
		if err != nil {
			s.problem("%s.%s[%d]: %v; it allows no address", path, field, i, err)
			continue
		}
		r.peers = append(r.peers, t)
	}
	for i, p := range ports {
		m, err := policyPort(p)
		if err != nil {
			s.problem("%s.ports[%d]: %v; it allows nothing", path, i, err)
			continue
		}
		r.ports = append(r.ports, m)
	}
	r.never = len(peers) > len(r.peers) && len(r.peers) == 0 || len(ports) > len(r.ports) && len(r.ports) == 0
	return r
}

func policyPeer(namespace string, p networkingv1.NetworkPolicyPeer) (term, error) {
	if p.IPBlock != nil {
		return ipBlock(p.IPBlock.CIDR, p.IPBlock.Except)
	}
	if p.PodSelector == nil && p.NamespaceSelector == nil {
		return term{}, fmt.Errorf("neither pods nor an ipBlock are set")
	}
	pods := everything
	var err error
	if p.PodSelector != nil {
		if pods, err = metav1.LabelSelectorAsSelector(p.PodSelector); err != nil {
			return term{}, fmt.Errorf("podSelector: %w", err)
		}
	}
	if p.NamespaceSelector == nil {
		return newPodTerm(podTerm{namespace: namespace, pods: pods}), nil
	}
	spaces, err := metav1.LabelSelectorAsSelector(p.NamespaceSelector)
	if err != nil {
		return term{}, fmt.Errorf("namespaceSelector: %w", err)
	}
	return newPodTerm(newSpaces(spaces, pods)), nil
}

func ipBlock(cidr string, except []string) (term, error) {
	prefix, err := netip.ParsePrefix(cidr)
	if err != nil {
		return term{}, fmt.Errorf("%q is not a CIDR", cidr)
	}
	b := block{prefix: prefix}
	for _, e := range except {
		p, err := netip.ParsePrefix(e)
		if err != nil {
			return term{}, fmt.Errorf("except: %q is not a CIDR", e)
		}
		b.except = append(b.except, p.Masked())
	}
	slices.SortFunc(b.except, netip.Prefix.Compare)
	return newBlock(b), nil
}

func policyPort(p networkingv1.NetworkPolicyPort) (portMatch, error) {
	m := portMatch{protocol: corev1.ProtocolTCP, last: maxPort}
	if p.Protocol != nil {
		m.protocol = *p.Protocol
	}
	if !slices.Contains(protocols[:], m.protocol) {
		return m, fmt.Errorf("unknown protocol %q", m.protocol)
	}
	switch {
	case p.Port == nil && p.EndPort != nil:
		return m, fmt.Errorf("endPort without port")
	case p.Port == nil:
		return m, nil
	case p.Port.Type == intstr.String && p.EndPort != nil:
		return m, fmt.Errorf("endPort with a port by name")
	case p.Port.Type == intstr.String:
		m.name = p.Port.StrVal
		return m, nil
	}
	end := p.Port.IntVal
	if p.EndPort != nil {
		end = *p.EndPort
	}
	return m, m.setRange(p.Port.IntVal, end)
}

// setRange sets the ports to first to last, both included.
func (m *portMatch) setRange(first, last int32) error {
	if first < 1 || last < first || last > maxPort {
		return fmt.Errorf("invalid ports %d to %d", first, last)
	}
	m.first, m.last = uint16(first), uint16(last)
	return nil
}
