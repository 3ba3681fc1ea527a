package policy_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"
	"sigs.k8s.io/network-policy-api/apis/v1beta1"

	"weft/internal/kube/policy"
	"weft/internal/kube/policy/policytest"
)

// TestDomain: the examples of the API, and forms that are none.
func TestDomain(t *testing.T) {
	for text, c := range map[string]struct{ matches, others string }{
		"kubernetes.io":                  {"kubernetes.io", "www.kubernetes.io blog.kubernetes.io my-kubernetes.io wikipedia.org io"},
		"blog.kubernetes.io":             {"blog.kubernetes.io", "www.kubernetes.io kubernetes.io"},
		"*.kubernetes.io":                {"www.kubernetes.io blog.kubernetes.io latest.blog.kubernetes.io", "kubernetes.io .kubernetes.io"},
		"*.Kubernetes.IO.":               {"www.kubernetes.io", "kubernetes.io my-kubernetes.io"},
		"_not.kubernetes.io":             {},
		"a_b.kubernetes.io":              {"a_b.kubernetes.io", "kubernetes.io"},
		"io":                             {},
		"*":                              {},
		"*.io":                           {},
		"w*.kubernetes.io":               {},
		"www.*.kubernetes.io":            {},
		"":                               {},
		"a..b":                           {},
		"10.0.0.1/8":                     {},
		strings.Repeat("a", 64) + ".io":  {},
		strings.Repeat("a.", 126) + "io": {},
		strings.Repeat("a", 63) + ".kubernetes.io": {strings.Repeat("a", 63) + ".kubernetes.io", ""},
	} {
		d, err := policy.ParseDomain(text)
		if (err == nil) != (c.matches != "") {
			t.Errorf("%q: %q, %v", text, d, err)
		}
		for _, name := range strings.Fields(c.matches) {
			if !d.Matches(name) {
				t.Errorf("%q does not match %q", text, name)
			}
		}
		for _, name := range strings.Fields(c.others) {
			if d.Matches(name) {
				t.Errorf("%q matches %q", text, name)
			}
		}
	}
}

// byDomain returns a cluster with a pod and a ClusterNetworkPolicy, which has a rule by domain name, and denies all else.
func byDomain(action v1beta1.ClusterNetworkPolicyRuleAction, domains ...v1beta1.DomainName) *policy.Cluster {
	k := &v1beta1.ClusterNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "names"}}
	k.Spec.Tier = v1beta1.AdminTier
	k.Spec.Subject.Namespaces = &metav1.LabelSelector{}
	k.Spec.Egress = []v1beta1.ClusterNetworkPolicyEgressRule{
		{Action: action, To: []v1beta1.ClusterNetworkPolicyEgressPeer{{DomainNames: domains}}},
		{Action: "Deny", To: []v1beta1.ClusterNetworkPolicyEgressPeer{{Networks: []v1beta1.CIDR{"0.0.0.0/0"}}}},
	}
	return &policy.Cluster{
		Namespaces: map[string]policy.Labels{"x": {}}, Pods: []*policy.Pod{web(true, 1), web(false, 2)},
		Policies: policy.Policies{Cluster: []*v1beta1.ClusterNetworkPolicy{k}},
	}
}

// TestNewAddress: a new address of a name changes one element and no rule. The ruleset names the pods with such rules, and the pods of the
// cluster's DNS.
func TestNewAddress(t *testing.T) {
	c := byDomain("Accept", "*.example.com")
	dns := &policy.Pod{
		Namespace: "kube-system", Name: "coredns", Labels: policy.Labels{"k8s-app": "kube-dns"},
		IPs: []netip.Addr{netip.MustParseAddr("10.32.9.9")},
	}
	fake := *dns
	fake.Namespace, fake.IPs = "x", []netip.Addr{netip.MustParseAddr("10.32.9.8")}
	c.Pods = append(c.Pods, dns, &fake)
	s := policy.NewState()
	policytest.Move(s, &policy.Cluster{}, c)
	s.Update()
	if got := s.Domains(); !slices.Equal(got, []policy.Domain{"*.example.com"}) {
		t.Errorf("domains %v", got)
	}
	r := s.Ruleset()
	if !slices.Equal(r.Askers, c.Pods[0].IPs) || !slices.Equal(s.Askers(), r.Askers) {
		t.Errorf("askers %v", r.Askers)
	}
	if got := r.Sets[r.Resolvers].Prefixes; len(got) != 1 || got[0].Addr() != dns.IPs[0] {
		t.Errorf("resolvers %v", got)
	}
	a := netip.MustParseAddr("192.0.2.7")
	packet := policytest.Packet{Src: c.Pods[0].IPs[0], Dst: a, Protocol: corev1.ProtocolTCP, Port: 443}
	if allowed(r, packet) {
		t.Error("an address is open before it is known")
	}
	s.SetDomain("*.example.com", []netip.Addr{a})
	if change := s.Update(); change.Rules != nil || len(change.Sets) != 1 || !allowed(s.Ruleset(), packet) {
		t.Errorf("a new address: %+v", change)
	}
	s.SetPolicies(policy.Policies{})
	s.Update()
	if r := s.Ruleset(); len(r.Askers)+len(r.Sets)+len(s.Domains()) > 0 || r.Resolvers != "" {
		t.Errorf("without policies: %+v", r)
	}
	s.SetPolicies(c.Policies)
	s.Update()
	if !allowed(s.Ruleset(), packet) {
		t.Error("a policy that came back has lost the address")
	}
}

// TestDomainProblems: rules that may not have domain names, and invalid ones, open nothing and are reported.
func TestDomainProblems(t *testing.T) {
	known := map[string][]netip.Addr{"www.example.com": {netip.MustParseAddr("192.0.2.7")}}
	for want, c := range map[string]*policy.Cluster{
		"only rules that allow":         byDomain("Deny", "www.example.com"),
		"the rule denies everything":    byDomain("Pass", "www.example.com"),
		`"w*.com" is not a domain name`: byDomain("Accept", "w*.com", "www.example.com"),
	} {
		c.Names = known
		rules := policy.Compile(c)
		if len(rules.Problems) != 1 || !strings.Contains(rules.Problems[0].Message, want) {
			t.Errorf("%s: problems %+v", want, rules.Problems)
		}
		if allowed(rules, policytest.Packet{Src: c.Pods[0].IPs[0], Dst: known["www.example.com"][0], Protocol: corev1.ProtocolTCP, Port: 443}) {
			t.Errorf("%s: open", want)
		}
	}
	a := &v1alpha1.AdminNetworkPolicy{ObjectMeta: metav1.ObjectMeta{Name: "names"}}
	a.Spec.Subject.Namespaces = &metav1.LabelSelector{}
	peer := v1alpha1.AdminNetworkPolicyEgressPeer{DomainNames: []v1alpha1.DomainName{"www.example.com"}}
	a.Spec.Egress = []v1alpha1.AdminNetworkPolicyEgressRule{{Action: "Deny", To: []v1alpha1.AdminNetworkPolicyEgressPeer{peer}}}
	c := byDomain("Accept")
	c.Policies = policy.Policies{Admin: []*v1alpha1.AdminNetworkPolicy{a}}
	rules := policy.Compile(c)
	packet := policytest.Packet{Src: c.Pods[0].IPs[0], Dst: c.Pods[1].IPs[0], Protocol: corev1.ProtocolTCP, Port: 443}
	if len(rules.Problems) != 1 || !strings.Contains(rules.Problems[0].Message, "it matches everything") || allowed(rules, packet) {
		t.Errorf("an AdminNetworkPolicy that denies by name: %+v", rules.Problems)
	}
}
