package policytest

import (
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"weft/internal/ether"
	"weft/internal/kube/policy"
)

// Large returns a cluster with pods in 100 namespaces; the given number of local pods, the first ones, are on this node. Each of
// the policies allows one application connections from some pods of its namespace, from all pods of ten namespaces and from a
// block of addresses, to one port.
func Large(pods, policies, local int) *policy.Cluster {
	c := &policy.Cluster{Namespaces: map[string]policy.Labels{}}
	const spaces = 100
	for i := range spaces {
		ns := fmt.Sprint("ns", i)
		c.Namespaces[ns] = policy.Labels{corev1.LabelMetadataName: ns, "team": fmt.Sprint("t", i%10)}
	}
	for i := range pods {
		p := &policy.Pod{
			Namespace: fmt.Sprint("ns", i%spaces), Name: fmt.Sprint("p", i), Local: i < local,
			Labels: policy.Labels{"app": fmt.Sprint("a", i/spaces%20), "pod-template-hash": fmt.Sprint(i)},
			IPs:    []netip.Addr{netip.AddrFrom4([4]byte{10, 32 + byte(i>>16), byte(i >> 8), byte(i)})},
		}
		p.LinkLocal = ether.FromIP(p.IPs[0]).LinkLocal()
		if p.Local {
			p.Link = fmt.Sprint("vweft", i)
		}
		c.Pods = append(c.Pods, p)
	}
	for i := range policies {
		port := intstr.FromInt32(int32(1000 + i%50))
		np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: fmt.Sprint("ns", i%spaces), Name: fmt.Sprint("np", i)}}
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
		np.Spec.PodSelector = metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("a", i/spaces)}}
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{
			From: []networkingv1.NetworkPolicyPeer{
				{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprint("a", (i/spaces+1)%20)}}},
				{NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": fmt.Sprint("t", i%10)}}},
				{IPBlock: &networkingv1.IPBlock{CIDR: "192.168.0.0/16", Except: []string{"192.168.7.0/24"}}},
			},
			Ports: []networkingv1.NetworkPolicyPort{{Port: &port}},
		}}
		c.Network = append(c.Network, np)
	}
	return c
}
