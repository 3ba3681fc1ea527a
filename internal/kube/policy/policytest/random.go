package policytest

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"

	"weft/internal/ether"
	"weft/internal/kube/policy"
)

// Random generates clusters, policies and packets. It draws from few values, so that selectors often match.
type Random struct{ *rand.Rand }

// NewRandom returns the Random of a seed.
func NewRandom(seed uint64) Random { return Random{rand.New(rand.NewPCG(seed, 0))} }

var (
	spaces    = []string{"x", "y", "z"}
	keys      = []string{"app", "tier"}
	values    = []string{"a", "b", "c"}
	portNames = []string{"web", "dns"}
	ports     = []uint16{53, 80, 81, 90, 443, 65535}
	kinds     = []corev1.Protocol{corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP}
)

func pick[T any](r Random, from []T) T { return from[r.IntN(len(from))] }

func (r Random) chance(of int) bool { return r.IntN(of) == 0 }

func (r Random) labels() policy.Labels {
	l := policy.Labels{}
	for _, k := range keys {
		if !r.chance(3) {
			l[k] = pick(r, values)
		}
	}
	return l
}

// Cluster returns a cluster with some pods of both families and no policies.
func (r Random) Cluster() *policy.Cluster {
	c := &policy.Cluster{Namespaces: map[string]policy.Labels{}}
	for _, ns := range spaces {
		c.Namespaces[ns] = r.labels()
		c.Namespaces[ns][corev1.LabelMetadataName] = ns
	}
	for i := range 4 + r.IntN(12) {
		p := &policy.Pod{Namespace: pick(r, spaces), Name: fmt.Sprint("p", i), Labels: r.labels(), Local: !r.chance(3)}
		p.IPs = []netip.Addr{netip.AddrFrom4([4]byte{10, 32, byte(i % 3), byte(i)}), netip.MustParseAddr(fmt.Sprintf("fd32::%x:%x", i%3, i))}
		if r.chance(4) {
			p.IPs = p.IPs[r.IntN(2):][:1]
		}
		p.LinkLocal = ether.FromIP(p.IPs[0]).LinkLocal()
		if p.Local && !r.chance(8) {
			p.Link = fmt.Sprint("vwp", i)
		}
		for _, name := range portNames {
			if !r.chance(3) {
				p.Ports = append(p.Ports, policy.Port{Name: name, Protocol: pick(r, kinds), Number: pick(r, ports)})
			}
		}
		c.Pods = append(c.Pods, p)
	}
	for i := range 2 {
		c.Nodes = append(c.Nodes, policy.Node{
			Name: fmt.Sprint("node", i), Labels: r.labels(), IPs: []netip.Addr{netip.AddrFrom4([4]byte{172, 30, 0, byte(11 + i)})},
			Aliases: []netip.Addr{netip.AddrFrom4([4]byte{10, 32, 1, byte(200 + i)})},
		})
	}
	return c
}

func (r Random) selector() *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	switch r.IntN(5) {
	case 0: // everything
	case 1:
		s.MatchExpressions = []metav1.LabelSelectorRequirement{{
			Key: pick(r, keys), Operator: pick(r, []metav1.LabelSelectorOperator{metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist}),
		}}
	case 2:
		s.MatchExpressions = []metav1.LabelSelectorRequirement{{
			Key: pick(r, keys), Values: []string{pick(r, values), pick(r, values)},
			Operator: pick(r, []metav1.LabelSelectorOperator{metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn}),
		}}
	default:
		s.MatchLabels = map[string]string{pick(r, keys): pick(r, values)}
	}
	return s
}

func (r Random) cidr() (prefix string, except []string) {
	switch r.IntN(6) {
	case 0:
		return "0.0.0.0/0", []string{"10.32.0.0/24"}
	case 1:
		return "10.32.0.0/16", []string{"10.32.1.0/25", fmt.Sprintf("10.32.0.%d/32", r.IntN(16))}
	case 2:
		return "172.30.0.0/24", nil
	case 3:
		return "fd32::/64", []string{"fd32::1:0/112"}
	case 4:
		return fmt.Sprintf("10.32.0.%d/31", 2*r.IntN(8)), nil
	}
	return "::/0", nil
}

func (r Random) peer() networkingv1.NetworkPolicyPeer {
	switch r.IntN(4) {
	case 0:
		prefix, except := r.cidr()
		return networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: prefix, Except: except}}
	case 1:
		return networkingv1.NetworkPolicyPeer{PodSelector: r.selector()}
	case 2:
		return networkingv1.NetworkPolicyPeer{NamespaceSelector: r.selector()}
	}
	return networkingv1.NetworkPolicyPeer{PodSelector: r.selector(), NamespaceSelector: r.selector()}
}

func (r Random) port() networkingv1.NetworkPolicyPort {
	p := networkingv1.NetworkPolicyPort{}
	if !r.chance(4) {
		protocol := pick(r, kinds)
		p.Protocol = &protocol
	}
	switch r.IntN(5) {
	case 0:
	case 1:
		name := intstr.FromString(pick(r, portNames))
		p.Port = &name
	case 2:
		first, end := intstr.FromInt32(int32(70+r.IntN(12))), int32(82+r.IntN(600))
		p.Port, p.EndPort = &first, &end
	default:
		number := intstr.FromInt32(int32(pick(r, ports)))
		p.Port = &number
	}
	return p
}

func several[T any](r Random, most int, make func() T) (out []T) {
	for range r.IntN(most + 1) {
		out = append(out, make())
	}
	return out
}

// Policy returns a NetworkPolicy.
func (r Random) Policy(name string) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: pick(r, spaces), Name: name}}
	np.Spec.PodSelector = *r.selector()
	np.Spec.PolicyTypes = pick(r, [][]networkingv1.PolicyType{
		{networkingv1.PolicyTypeIngress}, {networkingv1.PolicyTypeEgress}, {networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress},
	})
	np.Spec.Ingress = several(r, 3, func() networkingv1.NetworkPolicyIngressRule {
		return networkingv1.NetworkPolicyIngressRule{From: several(r, 3, r.peer), Ports: several(r, 2, r.port)}
	})
	np.Spec.Egress = several(r, 3, func() networkingv1.NetworkPolicyEgressRule {
		return networkingv1.NetworkPolicyEgressRule{To: several(r, 3, r.peer), Ports: several(r, 2, r.port)}
	})
	return np
}

func (r Random) namespacedPod() (*metav1.LabelSelector, *v1alpha1.NamespacedPod) {
	if r.chance(2) {
		return r.selector(), nil
	}
	return nil, &v1alpha1.NamespacedPod{NamespaceSelector: *r.selector(), PodSelector: *r.selector()}
}

func (r Random) subject() (s v1alpha1.AdminNetworkPolicySubject) {
	s.Namespaces, s.Pods = r.namespacedPod()
	return s
}

func (r Random) adminFrom() (p v1alpha1.AdminNetworkPolicyIngressPeer) {
	p.Namespaces, p.Pods = r.namespacedPod()
	return p
}

// adminTo returns a peer; one by domain name, which only rules that allow may have, if domains.
func (r Random) adminTo(domains bool) (p v1alpha1.AdminNetworkPolicyEgressPeer) {
	if domains && r.chance(3) {
		p.DomainNames = as[v1alpha1.DomainName](r.domainNames())
		return p
	}
	switch r.IntN(4) {
	case 0:
		p.Nodes = r.selector()
	case 1:
		prefix, _ := r.cidr()
		p.Networks = []v1alpha1.CIDR{v1alpha1.CIDR(prefix)}
	default:
		p.Namespaces, p.Pods = r.namespacedPod()
	}
	return p
}

func (r Random) adminPorts() *[]v1alpha1.AdminNetworkPolicyPort {
	if r.chance(2) {
		return nil
	}
	list := several(r, 2, func() (p v1alpha1.AdminNetworkPolicyPort) {
		switch r.IntN(3) {
		case 0:
			name := pick(r, portNames)
			p.NamedPort = &name
		case 1:
			p.PortRange = &v1alpha1.PortRange{Protocol: pick(r, kinds), Start: int32(70 + r.IntN(12)), End: int32(82 + r.IntN(600))}
		default:
			p.PortNumber = &v1alpha1.Port{Protocol: pick(r, kinds), Port: int32(pick(r, ports))}
		}
		return p
	})
	return &list
}

// adminTargets returns the peers and ports of an egress rule. The API allows ports by name for pods only.
func (r Random) adminTargets(domains bool) (to []v1alpha1.AdminNetworkPolicyEgressPeer, ports *[]v1alpha1.AdminNetworkPolicyPort) {
	peer := func() v1alpha1.AdminNetworkPolicyEgressPeer { return r.adminTo(domains) }
	to, ports = append(several(r, 2, peer), peer()), r.adminPorts()
	named := ports != nil && slices.ContainsFunc(*ports, func(p v1alpha1.AdminNetworkPolicyPort) bool { return p.NamedPort != nil })
	if named && slices.ContainsFunc(to, func(p v1alpha1.AdminNetworkPolicyEgressPeer) bool {
		return p.Nodes != nil || len(p.Networks)+len(p.DomainNames) > 0
	}) {
		return to, nil
	}
	return to, ports
}

// Admin returns an AdminNetworkPolicy of the given priority.
func (r Random) Admin(name string, priority int) *v1alpha1.AdminNetworkPolicy {
	a := &v1alpha1.AdminNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: name}}
	a.Spec.Priority, a.Spec.Subject = int32(priority), r.subject()
	action := func() v1alpha1.AdminNetworkPolicyRuleAction {
		return pick(r, []v1alpha1.AdminNetworkPolicyRuleAction{"Allow", "Deny", "Pass"})
	}
	a.Spec.Ingress = several(r, 3, func() v1alpha1.AdminNetworkPolicyIngressRule {
		return v1alpha1.AdminNetworkPolicyIngressRule{
			Action: action(), From: append(several(r, 2, r.adminFrom), r.adminFrom()), Ports: r.adminPorts(),
		}
	})
	a.Spec.Egress = several(r, 3, func() v1alpha1.AdminNetworkPolicyEgressRule {
		a := action()
		to, ports := r.adminTargets(a == v1alpha1.AdminNetworkPolicyRuleActionAllow)
		return v1alpha1.AdminNetworkPolicyEgressRule{Action: a, To: to, Ports: ports}
	})
	return a
}

// Baseline returns a BaselineAdminNetworkPolicy.
func (r Random) Baseline() *v1alpha1.BaselineAdminNetworkPolicy {
	b := &v1alpha1.BaselineAdminNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	b.Spec.Subject = r.subject()
	action := func() v1alpha1.BaselineAdminNetworkPolicyRuleAction {
		return pick(r, []v1alpha1.BaselineAdminNetworkPolicyRuleAction{"Allow", "Deny"})
	}
	b.Spec.Ingress = several(r, 2, func() v1alpha1.BaselineAdminNetworkPolicyIngressRule {
		return v1alpha1.BaselineAdminNetworkPolicyIngressRule{
			Action: action(), From: []v1alpha1.AdminNetworkPolicyIngressPeer{r.adminFrom()}, Ports: r.adminPorts(),
		}
	})
	b.Spec.Egress = several(r, 2, func() v1alpha1.BaselineAdminNetworkPolicyEgressRule {
		to, ports := r.adminTargets(false)
		rule := v1alpha1.BaselineAdminNetworkPolicyEgressRule{Action: action(), Ports: ports}
		for _, t := range to {
			rule.To = append(rule.To, v1alpha1.BaselineAdminNetworkPolicyEgressPeer{
				Namespaces: t.Namespaces, Pods: t.Pods, Nodes: t.Nodes, Networks: t.Networks,
			})
		}
		return rule
	})
	return b
}

// ClusterWithPolicies returns a cluster with at most some policies of each kind.
func (r Random) ClusterWithPolicies(some int) *policy.Cluster {
	c := r.Cluster()
	for i := range r.IntN(some + 1) {
		c.Network = append(c.Network, r.Policy(fmt.Sprint("np", i)))
	}
	if r.chance(2) {
		for i := range r.IntN(some + 1) {
			c.Admin = append(c.Admin, r.Admin(fmt.Sprint("anp", i), 2*i))
		}
	}
	if r.chance(2) {
		c.Baseline = append(c.Baseline, r.Baseline())
	}
	if r.chance(2) {
		for i := range r.IntN(some + 1) {
			c.Cluster = append(c.Cluster, r.ClusterPolicy(fmt.Sprint("cnp", i), 2*i+1))
		}
	}
	c.Names = r.Names(c)
	return c
}

// Packet returns a packet between pods, or between a pod and another address.
func (r Random) Packet(c *policy.Cluster) Packet {
	others := append([]netip.Addr{netip.MustParseAddr("172.30.0.11"), netip.MustParseAddr("10.32.1.200")}, external...)
	return r.packet(func() netip.Addr {
		if r.chance(5) {
			return pick(r, others)
		}
		return pick(r, pick(r, c.Pods).IPs)
	})
}

// clientPort is a port that no policy names.
const clientPort = 2000

// packet returns a packet between two addresses of one family that end returns.
func (r Random) packet(end func() netip.Addr) Packet {
	p := Packet{Src: end(), Dst: end(), Protocol: pick(r, kinds), Port: pick(r, ports)}
	for p.Src.Is4() != p.Dst.Is4() {
		p.Dst = end()
	}
	switch r.IntN(8) {
	case 0:
		p.Protocol, p.Port = ICMP, 0
	case 1:
		p.Port = uint16(1 + r.IntN(700))
	case 2, 3:
		p.Protocol, p.Open, p.Port, p.SrcPort = corev1.ProtocolTCP, true, clientPort, pick(r, ports)
	}
	return p
}

// Groups are destinations of all pods: of broadcasts and multicasts.
var Groups = []netip.Addr{
	netip.MustParseAddr("255.255.255.255"), netip.MustParseAddr("10.47.255.255"), netip.MustParseAddr("224.0.0.1"),
	netip.MustParseAddr("239.1.2.3"), netip.MustParseAddr("ff02::1"), netip.MustParseAddr("ff02::fb"), netip.MustParseAddr("ff05::1:3"),
}

// Frame returns a frame of a local pod or of another node, with any combination of tag, type and addresses.
func (r Random) Frame(c *policy.Cluster) Frame {
	f := Frame{EtherType: ether.TypeIPv4, Tagged: r.chance(6), Group: r.chance(3)}
	local := slices.DeleteFunc(slices.Clone(c.Pods), func(p *policy.Pod) bool { return p.Link == "" })
	if len(local) > 0 && !r.chance(4) {
		f.From = pick(r, local)
	}
	any := func() netip.Addr { // of another pod, or that a pod gave itself
		switch r.IntN(6) {
		case 0:
			return pick(r, []netip.Addr{
				netip.MustParseAddr("10.32.1.200"), netip.MustParseAddr("169.254.3.3"), netip.MustParseAddr("172.30.0.11"),
				netip.MustParseAddr("fe80::99"), netip.MustParseAddr("fd32::99"), netip.MustParseAddr("2001:db8::1"),
			})
		case 1, 2:
			return pick(r, c.Pods).LinkLocal
		}
		return pick(r, pick(r, c.Pods).IPs)
	}
	ends := 0
	f.Packet = r.packet(func() netip.Addr {
		ends++
		if ends == 1 && f.From != nil && !r.chance(3) {
			return pick(r, append(slices.Clone(f.From.IPs), f.From.LinkLocal))
		}
		if r.chance(4) && ends > 1 || r.chance(20) {
			return pick(r, Groups)
		}
		return any()
	})
	if !f.Src.Is4() {
		f.EtherType = ether.TypeIPv6
		if f.Protocol == ICMP && r.chance(2) {
			f.Protocol = NeighborDiscovery
		}
	}
	if r.chance(8) {
		f.EtherType = pick(r, []uint16{ether.TypeARP, 0x88cc, 0x8847, 0x88b5})
	}
	return f
}

// Move makes a State that has one cluster have another, by the changes between them.
func Move(s *policy.State, from, to *policy.Cluster) {
	s.SetNamespaces(to.Namespaces)
	s.SetNodes(to.Nodes)
	s.SetPolicies(to.Policies)
	Resolve(s, to)
	for _, p := range from.Pods {
		if !slices.ContainsFunc(to.Pods, func(q *policy.Pod) bool { return q.Namespace == p.Namespace && q.Name == p.Name }) {
			s.DeletePod(p.Namespace, p.Name)
		}
	}
	for _, p := range to.Pods {
		s.SetPod(p)
	}
}
