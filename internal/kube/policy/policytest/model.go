// Package policytest is a model of network policies to compare package policy with. It decides about one packet at a time, as
// directly as the documentation of the policies reads. It also generates random clusters and policies.
package policytest

import (
	"cmp"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
	"sigs.k8s.io/network-policy-api/apis/v1beta1"

	"weft/internal/kube/policy"
)

// Packet is the first packet of a connection, or a TCP segment of an open connection that nothing is known about. ICMP stands for
// all protocols without ports.
type Packet struct {
	Src, Dst netip.Addr
	Protocol corev1.Protocol
	Port     uint16 // destination
	// Open is true for a segment with ACK and without SYN. SrcPort is its source port.
	Open    bool
	SrcPort uint16
}

// ICMP is the Protocol of packets without ports.
const ICMP corev1.Protocol = "ICMP"

// Allowed reports whether the packet passes on the node of the pods that are Local. Both the egress policies of the source and
// the ingress policies of the destination must allow it. A segment of an open connection may be an answer: it also passes if a
// connection from its destination to its source is allowed.
func Allowed(c *policy.Cluster, p Packet) bool {
	if p.Src == p.Dst && podOf(c, p.Src) != nil {
		return true // a pod may connect to itself
	}
	return allowed(c, p) || p.Open && allowed(c, Packet{Src: p.Dst, Dst: p.Src, Protocol: p.Protocol, Port: p.SrcPort})
}

// allowed is Allowed for the client's packets to another pod.
func allowed(c *policy.Cluster, p Packet) bool {
	src, dst := podOf(c, p.Src), podOf(c, p.Dst)
	if src != nil && src.Local && !judge(c, src, true, p) {
		return false
	}
	return dst == nil || !dst.Local || judge(c, dst, false, p)
}

// podOf returns the pod with an address. The link-local address is one of a pod with IPv6; see judge for others.
func podOf(c *policy.Cluster, ip netip.Addr) *policy.Pod {
	for _, p := range c.Pods {
		if slices.Contains(p.IPs, ip) || p.LinkLocal == ip {
			return p
		}
	}
	return nil
}

// hasFamily reports whether a pod has an address of the family of ip, apart from the link-local one.
func hasFamily(pod *policy.Pod, ip netip.Addr) bool {
	return slices.ContainsFunc(pod.IPs, func(own netip.Addr) bool { return own.Is4() == ip.Is4() })
}

// judge reports whether the policies of a pod allow a packet. A pod that a policy selects has no packets of a family without
// addresses.
func judge(c *policy.Cluster, pod *policy.Pod, egress bool, p Packet) bool {
	if !hasFamily(pod, p.Src) {
		return !selected(c, pod, egress)
	}
	return decide(c, pod, egress, p)
}

// selected reports whether a policy with a say in a direction selects a pod.
func selected(c *policy.Cluster, pod *policy.Pod, egress bool) bool {
	direction := networkingv1.PolicyTypeIngress
	if egress {
		direction = networkingv1.PolicyTypeEgress
	}
	rules := func(in, out int) bool { return egress && out > 0 || !egress && in > 0 }
	return slices.ContainsFunc(c.Network, func(np *networkingv1.NetworkPolicy) bool {
		return np.Namespace == pod.Namespace && matches(&np.Spec.PodSelector, pod.Labels) && slices.Contains(np.Spec.PolicyTypes, direction)
	}) || slices.ContainsFunc(c.Admin, func(a *v1alpha1.AdminNetworkPolicy) bool {
		return subject(c, a.Spec.Subject, pod) && rules(len(a.Spec.Ingress), len(a.Spec.Egress))
	}) || slices.ContainsFunc(c.Baseline, func(b *v1alpha1.BaselineAdminNetworkPolicy) bool {
		return subject(c, b.Spec.Subject, pod) && rules(len(b.Spec.Ingress), len(b.Spec.Egress))
	}) || slices.ContainsFunc(c.Cluster, func(k *v1beta1.ClusterNetworkPolicy) bool {
		return clusterSubject(c, k, pod) && rules(len(k.Spec.Ingress), len(k.Spec.Egress))
	})
}

func decide(c *policy.Cluster, pod *policy.Pod, egress bool, p Packet) bool {
	other := p.Src
	if egress {
		other = p.Dst
	}
	if action := adminTier(c, pod, egress, other, p); action != "" && action != "Pass" {
		return action == "Allow"
	}
	isolated := false
	for _, np := range c.Network {
		if np.Namespace != pod.Namespace || !matches(&np.Spec.PodSelector, pod.Labels) {
			continue
		}
		direction := networkingv1.PolicyTypeIngress
		if egress {
			direction = networkingv1.PolicyTypeEgress
		}
		if !slices.Contains(np.Spec.PolicyTypes, direction) {
			continue
		}
		isolated = true
		if policyAllows(c, np, egress, other, p) {
			return true
		}
	}
	if isolated {
		return false
	}
	return baselineTier(c, pod, egress, other, p) != "Deny"
}

// decision is what a policy says about a packet, with its precedence.
type decision struct {
	priority int32
	action   string // Allow, Deny or Pass; empty: nothing
}

// first returns the action of the decision with the highest precedence that says something.
func first(decisions []decision) string {
	slices.SortStableFunc(decisions, func(a, b decision) int { return cmp.Compare(a.priority, b.priority) })
	for _, d := range decisions {
		if d.action != "" {
			return d.action
		}
	}
	return ""
}

// adminTier returns what the policies before NetworkPolicies say.
func adminTier(c *policy.Cluster, pod *policy.Pod, egress bool, other netip.Addr, p Packet) string {
	var all []decision
	for _, a := range c.Admin {
		if subject(c, a.Spec.Subject, pod) {
			all = append(all, decision{a.Spec.Priority, string(adminAction(c, a, egress, other, p))})
		}
	}
	return first(append(all, clusterDecisions(c, v1beta1.AdminTier, pod, egress, other, p)...))
}

// baselineTier returns what the policies behind NetworkPolicies say.
func baselineTier(c *policy.Cluster, pod *policy.Pod, egress bool, other netip.Addr, p Packet) string {
	all := clusterDecisions(c, v1beta1.BaselineTier, pod, egress, other, p)
	for _, b := range c.Baseline {
		if subject(c, b.Spec.Subject, pod) {
			all = append(all, decision{1001, string(baselineAction(c, b, egress, other, p))})
		}
	}
	return first(all)
}

func policyAllows(c *policy.Cluster, np *networkingv1.NetworkPolicy, egress bool, other netip.Addr, p Packet) bool {
	type ruleOf struct {
		peers []networkingv1.NetworkPolicyPeer
		ports []networkingv1.NetworkPolicyPort
	}
	var rules []ruleOf
	if egress {
		for _, r := range np.Spec.Egress {
			rules = append(rules, ruleOf{r.To, r.Ports})
		}
	} else {
		for _, r := range np.Spec.Ingress {
			rules = append(rules, ruleOf{r.From, r.Ports})
		}
	}
	for _, r := range rules {
		all := len(r.ports) == 0
		if all {
			r.ports = []networkingv1.NetworkPolicyPort{{}}
		}
		for _, port := range r.ports {
			byName := egress && port.Port != nil && port.Port.Type == intstr.String
			peer := len(r.peers) == 0 || slices.ContainsFunc(r.peers, func(x networkingv1.NetworkPolicyPeer) bool {
				return (x.IPBlock == nil || !byName) && peerMatches(c, np.Namespace, x, other) // only pods have port names
			})
			if peer && (all || portMatches(c, port, p)) {
				return true
			}
		}
	}
	return false
}

func portMatches(c *policy.Cluster, x networkingv1.NetworkPolicyPort, p Packet) bool {
	protocol := corev1.ProtocolTCP
	if x.Protocol != nil {
		protocol = *x.Protocol
	}
	if protocol != p.Protocol {
		return false
	}
	switch {
	case x.Port == nil:
		return true
	case x.Port.Type == intstr.String:
		return namedPort(c, x.Port.StrVal, p)
	case x.EndPort != nil:
		return x.Port.IntVal <= int32(p.Port) && int32(p.Port) <= *x.EndPort
	}
	return x.Port.IntVal == int32(p.Port)
}

// namedPort reports whether the packet goes to a pod's port of that name.
func namedPort(c *policy.Cluster, name string, p Packet) bool {
	dst := podOf(c, p.Dst)
	return dst != nil && hasFamily(dst, p.Dst) && slices.Contains(dst.Ports, policy.Port{Name: name, Protocol: p.Protocol, Number: p.Port})
}

func peerMatches(c *policy.Cluster, namespace string, x networkingv1.NetworkPolicyPeer, ip netip.Addr) bool {
	if x.IPBlock != nil {
		return inBlock(c, ip, x.IPBlock.CIDR, x.IPBlock.Except)
	}
	pod := podOf(c, ip)
	if pod == nil || !hasFamily(pod, ip) {
		return false
	}
	if x.NamespaceSelector == nil && pod.Namespace != namespace {
		return false
	}
	if x.NamespaceSelector != nil && !matches(x.NamespaceSelector, c.Namespaces[pod.Namespace]) {
		return false
	}
	return x.PodSelector == nil || matches(x.PodSelector, pod.Labels)
}

// inBlock reports whether an address, or one of the node that it stands for, is in a block.
func inBlock(c *policy.Cluster, ip netip.Addr, cidr string, except []string) bool {
	in := func(ip netip.Addr) bool {
		return netip.MustParsePrefix(cidr).Contains(ip) &&
			!slices.ContainsFunc(except, func(e string) bool { return netip.MustParsePrefix(e).Contains(ip) })
	}
	return in(ip) || slices.ContainsFunc(c.Nodes, func(n policy.Node) bool {
		return slices.Contains(n.Aliases, ip) && slices.ContainsFunc(n.IPs, in)
	})
}

func matches(s *metav1.LabelSelector, l policy.Labels) bool {
	selector, err := metav1.LabelSelectorAsSelector(s)
	return err == nil && selector.Matches(labels.Set(l))
}

func subject(c *policy.Cluster, s v1alpha1.AdminNetworkPolicySubject, pod *policy.Pod) bool {
	return among(c, s.Namespaces, s.Pods, pod)
}

func among(c *policy.Cluster, namespaces *metav1.LabelSelector, pods *v1alpha1.NamespacedPod, pod *policy.Pod) bool {
	if namespaces != nil {
		return matches(namespaces, c.Namespaces[pod.Namespace])
	}
	return matches(&pods.NamespaceSelector, c.Namespaces[pod.Namespace]) && matches(&pods.PodSelector, pod.Labels)
}

func adminAction(c *policy.Cluster, a *v1alpha1.AdminNetworkPolicy, egress bool, other netip.Addr,
	p Packet) v1alpha1.AdminNetworkPolicyRuleAction {
	if egress {
		for _, r := range a.Spec.Egress {
			if adminPorts(c, r.Ports, p) && slices.ContainsFunc(r.To, func(t v1alpha1.AdminNetworkPolicyEgressPeer) bool {
				return byDomain(t) && resolves(c, t.DomainNames, other) || !byDomain(t) && to(c, t.Namespaces, t.Pods, t.Nodes, t.Networks, other)
			}) {
				return r.Action
			}
		}
		return ""
	}
	for _, r := range a.Spec.Ingress {
		if adminPorts(c, r.Ports, p) && from(c, r.From, other) {
			return r.Action
		}
	}
	return ""
}

func baselineAction(c *policy.Cluster, b *v1alpha1.BaselineAdminNetworkPolicy, egress bool, other netip.Addr,
	p Packet) v1alpha1.BaselineAdminNetworkPolicyRuleAction {
	if egress {
		for _, r := range b.Spec.Egress {
			if adminPorts(c, r.Ports, p) && slices.ContainsFunc(r.To, func(t v1alpha1.BaselineAdminNetworkPolicyEgressPeer) bool {
				return to(c, t.Namespaces, t.Pods, t.Nodes, t.Networks, other)
			}) {
				return r.Action
			}
		}
		return ""
	}
	for _, r := range b.Spec.Ingress {
		if adminPorts(c, r.Ports, p) && from(c, r.From, other) {
			return r.Action
		}
	}
	return ""
}

func from(c *policy.Cluster, peers []v1alpha1.AdminNetworkPolicyIngressPeer, ip netip.Addr) bool {
	pod := podOf(c, ip)
	return pod != nil && hasFamily(pod, ip) && slices.ContainsFunc(peers, func(f v1alpha1.AdminNetworkPolicyIngressPeer) bool {
		return among(c, f.Namespaces, f.Pods, pod)
	})
}

func to(c *policy.Cluster, namespaces *metav1.LabelSelector, pods *v1alpha1.NamespacedPod,
	nodes *metav1.LabelSelector, networks []v1alpha1.CIDR, ip netip.Addr) bool {
	switch {
	case nodes != nil:
		return slices.ContainsFunc(c.Nodes, func(n policy.Node) bool {
			return matches(nodes, n.Labels) && (slices.Contains(n.IPs, ip) || slices.Contains(n.Aliases, ip))
		})
	case len(networks) > 0:
		return slices.ContainsFunc(networks, func(n v1alpha1.CIDR) bool { return inBlock(c, ip, string(n), nil) })
	}
	pod := podOf(c, ip)
	return pod != nil && hasFamily(pod, ip) && among(c, namespaces, pods, pod)
}

func adminPorts(c *policy.Cluster, ports *[]v1alpha1.AdminNetworkPolicyPort, p Packet) bool {
	if ports == nil || len(*ports) == 0 {
		return true
	}
	return slices.ContainsFunc(*ports, func(x v1alpha1.AdminNetworkPolicyPort) bool {
		switch {
		case x.PortNumber != nil:
			return x.PortNumber.Protocol == p.Protocol && x.PortNumber.Port == int32(p.Port)
		case x.PortRange != nil:
			return x.PortRange.Protocol == p.Protocol && x.PortRange.Start <= int32(p.Port) && int32(p.Port) <= x.PortRange.End
		}
		return namedPort(c, *x.NamedPort, p)
	})
}
