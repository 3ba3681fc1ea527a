package firewall

import (
	"context"
	"errors"
	"net/netip"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/knftables"

	"weft/internal/kube/policy"
	"weft/internal/nftwatch"
)

// accepting counts transactions, and accepts all.
type accepting struct {
	*knftables.Fake
	runs *int
}

func (a accepting) Run(context.Context, *knftables.Transaction) error { *a.runs++; return nil }

// scripted is a watcher that counts what the test says.
type scripted struct {
	counts []int // of the following calls of Count; then 1
	lost   bool
}

func (s *scripted) Count(context.Context, uint32) (int, error) {
	if s.lost {
		return 0, nftwatch.ErrLost
	}
	if len(s.counts) == 0 {
		return 1, nil
	}
	n := s.counts[0]
	s.counts = s.counts[1:]
	return n, nil
}

func (*scripted) Forget(uint32)              {}
func (*scripted) Reset()                     {}
func (*scripted) Changed() <-chan struct{}   { return nil }
func (*scripted) Close() error               { return nil }
func (*scripted) Wait(context.Context) error { return nil }

func newScripted(counts ...int) (n *NFT, runs, direct *int, w *scripted) {
	runs, direct, w = new(int), new(int), &scripted{counts: counts}
	n = &NFT{nft: accepting{knftables.NewFake("", ""), runs}, watch: w}
	n.generation = func() (uint32, error) { return 1, nil }
	n.direct = func([]step) error { *direct++; return nil }
	return n, runs, direct, w
}

// TestApplyAgain: rules that another program may have changed while they were set are set again.
func TestApplyAgain(t *testing.T) {
	for name, c := range map[string]struct {
		counts  []int // of transactions at each attempt
		applied int
		intact  bool
	}{
		"alone":      {[]int{1, 0}, 1, true},
		"once":       {[]int{2, 1, 0}, 2, true},
		"all along":  {[]int{2, 2, 2, 2, 2, 2}, applyAttempts, false},
		"afterwards": {[]int{1, 1}, 1, false},
	} {
		n, runs, _, _ := newScripted(c.counts...)
		if err := n.Apply(t.Context(), &policy.Ruleset{}); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if *runs != c.applied {
			t.Errorf("%s: set %d times, want %d", name, *runs, c.applied)
		}
		if intact, err := n.Intact(t.Context()); err != nil || intact != c.intact {
			t.Errorf("%s: intact %v, %v", name, intact, err)
		}
	}
}

// TestLostReports: rules that may have changed unseen are not intact.
func TestLostReports(t *testing.T) {
	n, _, _, w := newScripted(1)
	if err := n.Apply(t.Context(), &policy.Ruleset{}); err != nil {
		t.Fatal(err)
	}
	w.lost = true
	if intact, err := n.Intact(t.Context()); err != nil || intact {
		t.Errorf("intact %v, %v", intact, err)
	}
}

// TestChangePaths: a change does not run the nft program unless it has base chains or is large; one beside a change of another program is
// an error.
func TestChangePaths(t *testing.T) {
	addrs := policy.Change{Addrs: policy.Elements{Added: []netip.Prefix{netip.MustParsePrefix("10.32.0.1/32")}}}
	n, runs, direct, _ := newScripted(1, 1, 1, 1, 1, 2)
	if err := n.Change(t.Context(), addrs); err == nil {
		t.Error("unknown rules were changed")
	}
	if err := n.Apply(t.Context(), &policy.Ruleset{}); err != nil {
		t.Fatal(err)
	}
	if err := n.Change(t.Context(), addrs); err != nil || *runs != 1 || *direct != 1 {
		t.Errorf("elements: %v, %d runs of nft, %d direct", err, *runs, *direct)
	}
	rules := policy.Change{Rules: &policy.Ruleset{Chains: map[string]policy.Chain{}, Sets: map[string]policy.Set{"s1": {}}}}
	if err := n.Change(t.Context(), rules); err != nil || *runs != 1 || *direct != 2 {
		t.Errorf("a new set: %v, %d runs of nft, %d direct", err, *runs, *direct)
	}
	rules.Rules = &policy.Ruleset{Links: map[string]policy.Link{"vwa": {}}}
	if err := n.Change(t.Context(), rules); err != nil || *runs != 2 || *direct != 2 {
		t.Errorf("the first port: %v, %d runs of nft, %d direct", err, *runs, *direct)
	}
	many := policy.Change{}
	for i := range maxDirect + 1 {
		many.Addrs.Added = append(many.Addrs.Added, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 33, byte(i >> 8), byte(i)}), 32))
	}
	if err := n.Change(t.Context(), many); err != nil || *runs != 3 || *direct != 2 {
		t.Errorf("many elements: %v, %d runs of nft, %d direct", err, *runs, *direct)
	}
	if err := n.Change(t.Context(), policy.Change{}); err != nil { // counts no transaction
		t.Errorf("no change: %v", err)
	}
	if err := n.Change(t.Context(), addrs); !errors.Is(err, errNotAlone) {
		t.Errorf("beside another program: %v", err)
	}
	if err := n.Change(t.Context(), addrs); err == nil {
		t.Error("rules of another program were changed")
	}
}

// policies returns policies for pods with the label app=web: ports by number, range and name, and blocks of addresses, in both directions.
func policies() policy.Policies {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "np"}}
	np.Spec.PodSelector.MatchLabels = map[string]string{"app": "web"}
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress, networkingv1.PolicyTypeEgress}
	peers := []networkingv1.NetworkPolicyPeer{
		{PodSelector: &metav1.LabelSelector{}},
		{IPBlock: &networkingv1.IPBlock{CIDR: "192.168.0.0/16", Except: []string{"192.168.7.0/24"}}},
	}
	number, name, end := intstr.FromInt32(80), intstr.FromString("http"), int32(90)
	ports := []networkingv1.NetworkPolicyPort{{Port: &number}, {Port: &number, EndPort: &end}, {Port: &name}}
	np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: peers, Ports: ports}, {From: peers[:1]}}
	np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: peers, Ports: ports}, {To: peers[1:]}}
	return policy.Policies{Network: []*networkingv1.NetworkPolicy{np}}
}

// podOf returns a local pod of the namespace x with both families and a named port.
func podOf(name, app string, last byte) *policy.Pod {
	return &policy.Pod{
		Namespace: "x", Name: name, Labels: policy.Labels{"app": app}, Local: true, Link: "vw" + name,
		IPs:   []netip.Addr{netip.AddrFrom4([4]byte{10, 64, 0, last}), netip.AddrFrom16([16]byte{0xfd, 0x64, 15: last})},
		Ports: []policy.Port{{Name: "http", Protocol: corev1.ProtocolTCP, Number: 8080}},
	}
}

// TestUsualChanges: the nft program does not run for the first pod that a policy selects, for the next one, and for the last one that goes.
func TestUsualChanges(t *testing.T) {
	n, runs, direct, _ := newScripted()
	s := policy.NewState()
	s.SetNamespaces(map[string]policy.Labels{"x": {}})
	s.SetPolicies(policies())
	s.SetPod(podOf("other", "other", 1))
	s.Update()
	if err := n.Apply(t.Context(), s.Ruleset()); err != nil {
		t.Fatal(err)
	}
	change := func(what string) {
		t.Helper()
		c := s.Update()
		*runs, *direct = 0, 0
		if err := n.Change(t.Context(), c); err != nil || *runs != 0 || *direct != 1 {
			t.Errorf("%s: %v, %d runs of nft, %d direct", what, err, *runs, *direct)
		}
	}
	s.SetPod(podOf("web1", "web", 2))
	change("first")
	if len(n.applied.chains) < 10 {
		t.Errorf("%d chains", len(n.applied.chains))
	}
	s.SetPod(podOf("web2", "web", 3))
	change("next")
	s.DeletePod("x", "web2")
	change("next goes")
	s.DeletePod("x", "web1")
	change("last goes")
	if len(n.applied.chains) != 0 {
		t.Errorf("%d chains are left", len(n.applied.chains))
	}
}
