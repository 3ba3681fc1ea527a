package policy_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/network-policy-api/apis/v1beta1"

	"weft/internal/kube/policy"
	"weft/internal/kube/policy/policytest"
)

// allowed reports whether a compiled ruleset allows a packet.
func allowed(r *policy.Ruleset, p policytest.Packet) bool {
	if p.Src == p.Dst {
		return true
	}
	if p.Open && allowed(r, policytest.Packet{Src: p.Dst, Dst: p.Src, Protocol: p.Protocol, Port: p.SrcPort}) {
		return true
	}
	return follow(r, r.Pods[p.Src].Egress, p.Dst, p) && follow(r, r.Pods[p.Dst].Ingress, p.Src, p)
}

func follow(r *policy.Ruleset, name string, other netip.Addr, p policytest.Packet) bool {
	if name == "" {
		return true
	}
	chain, ok := r.Chains[name]
	if !ok {
		panic("no chain " + name)
	}
	for _, j := range chain.Ports {
		if j.Protocol == p.Protocol && j.First <= p.Port && p.Port <= j.Last {
			return follow(r, j.Chain, other, p)
		}
	}
	target := chain.End
	for _, rule := range chain.Rules {
		if rule.Set == "" || slices.ContainsFunc(r.Sets[rule.Set].Prefixes, func(q netip.Prefix) bool { return q.Contains(other) }) {
			target = rule.Target
			break
		}
	}
	switch target.Action {
	case policy.Allow:
		return true
	case policy.Deny:
		return false
	case policy.Goto:
		return follow(r, target.Chain, other, p)
	}
	panic(fmt.Sprint("bad target ", target))
}

// TestModel: compiled rulesets decide about packets as the model does.
func TestModel(t *testing.T) {
	seeds := 1500
	if testing.Short() {
		seeds = 100
	}
	passed, dropped := 0, 0
	for seed := range uint64(seeds) {
		random := policytest.NewRandom(seed)
		c := random.ClusterWithPolicies(5)
		rules := policy.Compile(c)
		for range 200 {
			p := random.Packet(c)
			want := policytest.Allowed(c, p)
			if want {
				passed++
			} else {
				dropped++
			}
			if got := allowed(rules, p); got != want {
				text, _ := json.MarshalIndent(c, "", " ")
				t.Fatalf("seed %d: %+v: allowed %v, want %v\n%s", seed, p, got, want, text)
			}
		}
	}
	if passed < dropped/8 || dropped < passed/8 {
		t.Errorf("%d packets passed and %d were dropped: the random clusters test too little", passed, dropped)
	}
}

// TestSameTwice: names do not depend on the order of maps or lists.
func TestSameTwice(t *testing.T) {
	for seed := range uint64(50) {
		random := policytest.NewRandom(seed)
		c := random.ClusterWithPolicies(5)
		first := policy.Compile(c)
		random.Shuffle(len(c.Pods), func(i, j int) { c.Pods[i], c.Pods[j] = c.Pods[j], c.Pods[i] })
		random.Shuffle(len(c.Network), func(i, j int) { c.Network[i], c.Network[j] = c.Network[j], c.Network[i] })
		prefixes := cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })
		addrs := cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
		if diff := cmp.Diff(first, policy.Compile(c), prefixes, addrs); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
}

func web(local bool, i int) *policy.Pod {
	return &policy.Pod{
		Namespace: "x", Name: fmt.Sprint("web", i), Labels: policy.Labels{"app": "web"}, Local: local,
		IPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 32, byte(i >> 8), byte(i)})},
	}
}

func denyAll(name string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, UID: "u"},
		Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}},
	}
}

// TestPodsShareChains: pods with the same policies share a chain, and a further pod changes only elements of sets.
func TestPodsShareChains(t *testing.T) {
	np := denyAll("np")
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}}}
	c := &policy.Cluster{Namespaces: map[string]policy.Labels{"x": {}}, Policies: policy.Policies{Network: []*networkingv1.NetworkPolicy{np}}}
	for i := range 3 {
		c.Pods = append(c.Pods, web(true, i+1))
	}
	before := policy.Compile(c)
	if len(before.Chains) != 1 || len(before.Sets) != 1 || len(before.Pods) != 3 {
		t.Fatalf("%+v", before)
	}
	c.Pods = append(c.Pods, web(false, 9))
	after := policy.Compile(c)
	if diff := cmp.Diff(before.Chains, after.Chains); diff != "" {
		t.Error(diff)
	}
	for name := range before.Sets {
		if got := len(after.Sets[name].Prefixes); got != 4 {
			t.Errorf("set %s has %d elements", name, got)
		}
	}
}

// TestLinks: the ruleset names the ports of local pods. The link-local address is one of a pod with IPv6; of a pod without, it is
// closed in the directions in which a policy selects the pod.
func TestLinks(t *testing.T) {
	c := &policy.Cluster{Namespaces: map[string]policy.Labels{"x": {}}, Pods: []*policy.Pod{web(true, 1), web(true, 2), web(false, 3)}}
	local := []netip.Addr{netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")}
	for i, p := range c.Pods[:2] {
		p.Link, p.LinkLocal = fmt.Sprint("port", i), local[i]
	}
	c.Pods[1].IPs = append(c.Pods[1].IPs, netip.MustParseAddr("fd32::2"))
	if r := policy.Compile(c); len(r.Links)+len(r.Addrs) > 0 {
		t.Errorf("without policies: %+v", r)
	}
	np := denyAll("np")
	peers := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{}, {From: peers}}
	c.Network = []*networkingv1.NetworkPolicy{np}
	r := policy.Compile(c)
	chain := r.Pods[c.Pods[0].IPs[0]]
	if chain.Ingress == "" || chain.Egress != "" {
		t.Fatalf("chains %+v", chain)
	}
	for i, want := range [][]netip.Addr{c.Pods[0].IPs, append(slices.Clone(c.Pods[1].IPs), local[1])} {
		slices.SortFunc(want, netip.Addr.Compare)
		if got := r.Links[c.Pods[i].Link]; !slices.Equal(got.Addrs, want) || got.Chains != chain {
			t.Errorf("port of pod %d: %+v, want %v", i, got, want)
		}
	}
	if got := r.Pods[local[1]]; got != chain {
		t.Errorf("the link-local address of a pod with IPv6 has %+v", got)
	}
	if got := r.Pods[local[0]]; got.Egress != "" || r.Chains[got.Ingress].End.Action != policy.Deny {
		t.Errorf("the link-local address of a pod without IPv6 has %+v", got)
	}
	if len(r.Links) != 2 || len(r.Addrs) != 5 {
		t.Errorf("%d ports, %d addresses", len(r.Links), len(r.Addrs))
	}
}

// TestConstantDepth: a connection of a pod with many policies passes as few rules as with one policy.
func TestConstantDepth(t *testing.T) {
	c := &policy.Cluster{Namespaces: map[string]policy.Labels{"x": {}}, Pods: []*policy.Pod{web(true, 1)}}
	for i := range 500 {
		np := denyAll(fmt.Sprint("np", i))
		port := intstr.FromInt32(int32(1000 + i))
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{
			From:  []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("10.1.%d.%d/32", i/256, i%256)}}},
			Ports: []networkingv1.NetworkPolicyPort{{Port: &port}},
		}, {From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: fmt.Sprintf("10.2.%d.0/24", i%256)}}}}}
		c.Network = append(c.Network, np)
	}
	rules := policy.Compile(c)
	for name, chain := range rules.Chains {
		if len(chain.Rules) > 8 {
			t.Fatalf("chain %s has %d rules", name, len(chain.Rules))
		}
	}
}

// TestProblems: invalid policies deny and are reported. Other policies stay in force.
func TestProblems(t *testing.T) {
	badSelector := metav1.LabelSelector{
		MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "app", Operator: "Like", Values: []string{"w"}}},
	}
	name, number := intstr.FromString("nosuch"), intstr.FromInt32(80)
	protocol := corev1.Protocol("IGMP")
	end := int32(70)
	peer := []networkingv1.NetworkPolicyPeer{{PodSelector: &metav1.LabelSelector{}}}
	for want, change := range map[string]func(*networkingv1.NetworkPolicySpec){
		"spec.podSelector": func(s *networkingv1.NetworkPolicySpec) { s.PodSelector = badSelector },
		"podSelector: ": func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{PodSelector: &badSelector}}}}
		},
		`"10.0.0/8" is not a CIDR`: func(s *networkingv1.NetworkPolicySpec) {
			peer := networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: "10.0.0/8"}}
			s.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{peer}}}
		},
		`port named "nosuch"`: func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peer, Ports: []networkingv1.NetworkPolicyPort{{Port: &name}}}}
		},
		`unknown protocol "IGMP"`: func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Protocol: &protocol}}}}
		},
		"ports 80 to 70": func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress = []networkingv1.NetworkPolicyIngressRule{{Ports: []networkingv1.NetworkPolicyPort{{Port: &number, EndPort: &end}}}}
		},
		"neither pods nor an ipBlock": func(s *networkingv1.NetworkPolicySpec) {
			s.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{}}}}
		},
	} {
		np := denyAll("np")
		change(&np.Spec)
		c := &policy.Cluster{
			Namespaces: map[string]policy.Labels{"x": {}}, Pods: []*policy.Pod{web(true, 1), web(true, 2)},
			Policies: policy.Policies{Network: []*networkingv1.NetworkPolicy{np}},
		}
		rules := policy.Compile(c)
		if len(rules.Problems) != 1 || !strings.Contains(rules.Problems[0].Message, want) || rules.Problems[0].UID != "u" {
			t.Errorf("%s: problems %+v", want, rules.Problems)
		}
		p := policytest.Packet{Src: c.Pods[0].IPs[0], Dst: c.Pods[1].IPs[0], Protocol: corev1.ProtocolTCP, Port: 80}
		if allowed(rules, p) {
			t.Errorf("%s: allows %+v", want, p)
		}
	}
}

// TestClusterPolicyFailsClosed: a rule of a ClusterNetworkPolicy with a part that is not understood accepts nothing, or denies everything.
func TestClusterPolicyFailsClosed(t *testing.T) {
	type (
		rule     = v1beta1.ClusterNetworkPolicyEgressRule
		peer     = v1beta1.ClusterNetworkPolicyEgressPeer
		protocol = v1beta1.ClusterNetworkPolicyProtocol
	)
	everywhere := peer{Namespaces: &metav1.LabelSelector{}}
	tcp := v1beta1.ClusterNetworkPolicyProtocol{TCP: &v1beta1.ClusterNetworkPolicyProtocolTCP{}}
	for name, c := range map[string]struct {
		rule    rule
		allowed bool
		problem bool
	}{
		"accept":                     {rule{Action: "Accept"}, true, false},
		"deny":                       {rule{Action: "Deny"}, false, false},
		"accept to an unknown peer":  {rule{Action: "Accept", To: make([]peer, 1)}, false, true},
		"pass to an unknown peer":    {rule{Action: "Pass", To: make([]peer, 1)}, false, true},
		"deny an unknown protocol":   {rule{Action: "Deny", Protocols: make([]protocol, 1)}, false, true},
		"accept an unknown protocol": {rule{Action: "Accept", Protocols: []protocol{tcp, {}}}, false, true},
		"an unknown action":          {rule{Action: "Log"}, false, true},
	} {
		if len(c.rule.To) == 0 {
			c.rule.To = []v1beta1.ClusterNetworkPolicyEgressPeer{everywhere}
		}
		rest := v1beta1.ClusterNetworkPolicyEgressRule{Action: "Deny", To: []v1beta1.ClusterNetworkPolicyEgressPeer{everywhere}}
		np := &v1beta1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "p"}}
		np.Spec.Tier, np.Spec.Subject.Namespaces = v1beta1.AdminTier, &metav1.LabelSelector{}
		np.Spec.Egress = []v1beta1.ClusterNetworkPolicyEgressRule{c.rule, rest}
		cluster := &policy.Cluster{
			Namespaces: map[string]policy.Labels{"x": {}}, Pods: []*policy.Pod{web(true, 1), web(false, 2)},
			Policies: policy.Policies{Cluster: []*v1beta1.ClusterNetworkPolicy{np}},
		}
		rules := policy.Compile(cluster)
		p := policytest.Packet{Src: cluster.Pods[0].IPs[0], Dst: cluster.Pods[1].IPs[0], Protocol: corev1.ProtocolTCP, Port: 80}
		if got := allowed(rules, p); got != c.allowed {
			t.Errorf("%s: allowed %v, want %v", name, got, c.allowed)
		}
		if (len(rules.Problems) > 0) != c.problem {
			t.Errorf("%s: problems %v", name, rules.Problems)
		}
	}
}

// BenchmarkState: a State of a node with 250 of 50,000 pods and 2,000 policies. "start" reads the whole cluster, "remote" replaces a pod
// of another node, "local" one of this node, "extend" as well, as when the pod waits.
func BenchmarkState(b *testing.B) {
	c := policytest.Large(50_000, 2_000, 250)
	start := func() *policy.State {
		s := policy.NewState()
		s.SetNamespaces(c.Namespaces)
		s.SetPolicies(c.Policies)
		for _, p := range c.Pods {
			s.SetPod(p)
		}
		s.Update()
		return s
	}
	b.Run("start", func(b *testing.B) {
		for b.Loop() {
			start()
		}
	})
	s := start()
	for name, pod := range map[string]*policy.Pod{"remote": c.Pods[40_000], "local": c.Pods[7]} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				s.DeletePod(pod.Namespace, pod.Name)
				s.Update()
				s.SetPod(pod)
				s.Update()
			}
		})
	}
	b.Run("extend", func(b *testing.B) {
		for b.Loop() {
			s.DeletePod(c.Pods[7].Namespace, c.Pods[7].Name)
			s.Extend()
			s.SetPod(c.Pods[7])
			s.Extend()
		}
	})
}
