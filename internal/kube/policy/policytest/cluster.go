package policytest

import (
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
	"sigs.k8s.io/network-policy-api/apis/v1beta1"

	"weft/internal/kube/policy"
)

// clusterDecisions returns what the ClusterNetworkPolicies of a tier say about a packet of a pod.
func clusterDecisions(c *policy.Cluster, tier v1beta1.Tier, pod *policy.Pod, egress bool, other netip.Addr, p Packet) (out []decision) {
	for _, k := range c.Cluster {
		if k.Spec.Tier != tier || !clusterSubject(c, k, pod) {
			continue
		}
		action := string(clusterAction(c, k, egress, other, p))
		if action == "Accept" {
			action = "Allow"
		}
		out = append(out, decision{k.Spec.Priority, action})
	}
	return out
}

func clusterSubject(c *policy.Cluster, k *v1beta1.ClusterNetworkPolicy, pod *policy.Pod) bool {
	return amongCluster(c, k.Spec.Subject.Namespaces, k.Spec.Subject.Pods, pod)
}

func amongCluster(c *policy.Cluster, namespaces *metav1.LabelSelector, pods *v1beta1.NamespacedPod, pod *policy.Pod) bool {
	return among(c, namespaces, (*v1alpha1.NamespacedPod)(pods), pod)
}

func clusterAction(c *policy.Cluster, k *v1beta1.ClusterNetworkPolicy, egress bool, other netip.Addr,
	p Packet) v1beta1.ClusterNetworkPolicyRuleAction {
	if egress {
		for _, r := range k.Spec.Egress {
			if protocols(c, r.Protocols, p) && slices.ContainsFunc(r.To, func(t v1beta1.ClusterNetworkPolicyEgressPeer) bool {
				return clusterTo(c, t, other)
			}) {
				return r.Action
			}
		}
		return ""
	}
	for _, r := range k.Spec.Ingress {
		if protocols(c, r.Protocols, p) && slices.ContainsFunc(r.From, func(f v1beta1.ClusterNetworkPolicyIngressPeer) bool {
			return clusterTo(c, v1beta1.ClusterNetworkPolicyEgressPeer{Namespaces: f.Namespaces, Pods: f.Pods}, other)
		}) {
			return r.Action
		}
	}
	return ""
}

func clusterTo(c *policy.Cluster, t v1beta1.ClusterNetworkPolicyEgressPeer, ip netip.Addr) bool {
	if len(t.DomainNames) > 0 {
		return resolves(c, t.DomainNames, ip)
	}
	networks := make([]v1alpha1.CIDR, len(t.Networks))
	for i, n := range t.Networks {
		networks[i] = v1alpha1.CIDR(n)
	}
	return to(c, t.Namespaces, (*v1alpha1.NamespacedPod)(t.Pods), t.Nodes, networks, ip)
}

func protocols(c *policy.Cluster, list []v1beta1.ClusterNetworkPolicyProtocol, p Packet) bool {
	port := func(protocol corev1.Protocol, x *v1beta1.Port) bool {
		switch {
		case protocol != p.Protocol:
			return false
		case x == nil:
			return true
		case x.Range != nil:
			return x.Range.Start <= int32(p.Port) && int32(p.Port) <= x.Range.End
		}
		return x.Number == int32(p.Port)
	}
	return len(list) == 0 || slices.ContainsFunc(list, func(x v1beta1.ClusterNetworkPolicyProtocol) bool {
		switch {
		case x.TCP != nil:
			return port(corev1.ProtocolTCP, x.TCP.DestinationPort)
		case x.UDP != nil:
			return port(corev1.ProtocolUDP, x.UDP.DestinationPort)
		case x.SCTP != nil:
			return port(corev1.ProtocolSCTP, x.SCTP.DestinationPort)
		}
		return namedPort(c, x.DestinationNamedPort, p)
	})
}

// ClusterPolicy returns a ClusterNetworkPolicy of the given priority.
func (r Random) ClusterPolicy(name string, priority int) *v1beta1.ClusterNetworkPolicy {
	k := &v1beta1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	k.Spec.Tier, k.Spec.Priority = pick(r, []v1beta1.Tier{v1beta1.AdminTier, v1beta1.BaselineTier}), int32(priority)
	k.Spec.Subject.Namespaces, k.Spec.Subject.Pods = r.clusterPods()
	action := func() v1beta1.ClusterNetworkPolicyRuleAction {
		return pick(r, []v1beta1.ClusterNetworkPolicyRuleAction{"Accept", "Deny", "Pass"})
	}
	from := func() (p v1beta1.ClusterNetworkPolicyIngressPeer) {
		p.Namespaces, p.Pods = r.clusterPods()
		return p
	}
	k.Spec.Ingress = several(r, 3, func() v1beta1.ClusterNetworkPolicyIngressRule {
		return v1beta1.ClusterNetworkPolicyIngressRule{Action: action(), From: append(several(r, 2, from), from()), Protocols: r.protocols(true)}
	})
	k.Spec.Egress = several(r, 3, func() v1beta1.ClusterNetworkPolicyEgressRule {
		a := action()
		peer := func() v1beta1.ClusterNetworkPolicyEgressPeer {
			return r.clusterTo(a == v1beta1.ClusterNetworkPolicyRuleActionAccept)
		}
		to := append(several(r, 2, peer), peer())
		pods := !slices.ContainsFunc(to, func(p v1beta1.ClusterNetworkPolicyEgressPeer) bool {
			return p.Nodes != nil || len(p.Networks)+len(p.DomainNames) > 0
		})
		return v1beta1.ClusterNetworkPolicyEgressRule{Action: a, To: to, Protocols: r.protocols(pods)}
	})
	return k
}

func (r Random) clusterPods() (*metav1.LabelSelector, *v1beta1.NamespacedPod) {
	spaces, pods := r.namespacedPod()
	return spaces, (*v1beta1.NamespacedPod)(pods)
}

// clusterTo returns a peer; one by domain name, which only rules that accept may have, if domains.
func (r Random) clusterTo(domains bool) (p v1beta1.ClusterNetworkPolicyEgressPeer) {
	if domains && r.chance(3) {
		p.DomainNames = as[v1beta1.DomainName](r.domainNames())
		return p
	}
	switch r.IntN(4) {
	case 0:
		p.Nodes = r.selector()
	case 1:
		prefix, _ := r.cidr()
		p.Networks = []v1beta1.CIDR{v1beta1.CIDR(prefix)}
	default:
		p.Namespaces, p.Pods = r.clusterPods()
	}
	return p
}

// protocols returns protocols and ports; ports by name, which only pods have, if named.
func (r Random) protocols(named bool) []v1beta1.ClusterNetworkPolicyProtocol {
	port := func() *v1beta1.Port {
		switch r.IntN(3) {
		case 0:
			return nil
		case 1:
			return &v1beta1.Port{Range: &v1beta1.PortRange{Start: int32(70 + r.IntN(12)), End: int32(82 + r.IntN(600))}}
		}
		return &v1beta1.Port{Number: int32(pick(r, ports))}
	}
	return several(r, 2, func() v1beta1.ClusterNetworkPolicyProtocol {
		switch r.IntN(4) {
		case 0:
			return v1beta1.ClusterNetworkPolicyProtocol{UDP: &v1beta1.ClusterNetworkPolicyProtocolUDP{DestinationPort: port()}}
		case 1:
			return v1beta1.ClusterNetworkPolicyProtocol{SCTP: &v1beta1.ClusterNetworkPolicyProtocolSCTP{DestinationPort: port()}}
		case 2:
			if named {
				return v1beta1.ClusterNetworkPolicyProtocol{DestinationNamedPort: pick(r, portNames)}
			}
		}
		return v1beta1.ClusterNetworkPolicyProtocol{TCP: &v1beta1.ClusterNetworkPolicyProtocolTCP{DestinationPort: port()}}
	})
}
