package kube

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	dynamicfake "k8s.io/client-go/dynamic/fake"

	"weft/internal/api"
	"weft/internal/ether"
	"weft/internal/kube/policy"
	"weft/internal/leases/holder"
)

// isolate returns a policy that denies all ingress to the pods with a label.
func isolate(name, app string) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name, UID: "np"}}
	np.Spec.PodSelector.MatchLabels = map[string]string{"app": app}
	np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	return np
}

// enforcing runs an enforcer with the fakes of a bench until the returned function is called. It must be called in a bubble of
// synctest.
func (b *bench) enforcing(t *testing.T) (*enforcer, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	c, err := newCluster(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEnforcer(b.cfg, c, &health{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 2)
	go func() { done <- c.Run(ctx) }()
	go func() { done <- e.run(ctx) }()
	time.Sleep(time.Second) // of the bubble
	return e, func() { cancel(); _, _ = <-done, <-done }
}

func admitted(e *enforcer, in api.Admission) *httptest.ResponseRecorder {
	text, _ := json.Marshal(in)
	w := httptest.NewRecorder()
	e.handler().ServeHTTP(w, httptest.NewRequest(http.MethodPut, "/v1/pods", bytes.NewReader(text)))
	return w
}

func (b *bench) want(t *testing.T, what, ip string, isolated bool) {
	t.Helper()
	if chains, ok := b.filter.of(ip); !ok || (chains != policy.PodChains{}) != isolated {
		t.Errorf("%s: %s has chains %+v (%v), want isolated: %v", what, ip, chains, ok, isolated)
	}
}

// TestEnforce: the rules follow pods and policies that are added and deleted.
func TestEnforce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, newNode("node1", "172.30.0.11", 1),
			newPod("web", "node1", map[string]string{"app": "web"}, "10.32.0.1"),
			newPod("far", "node2", map[string]string{"app": "web"}, "10.32.0.2"))
		e, stop := b.enforcing(t)
		defer stop()
		b.want(t, "without policies", "10.32.0.1", false)
		ctx := t.Context()
		if _, err := b.api.NetworkingV1().NetworkPolicies("ns").Create(ctx, isolate("np", "web"), metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		b.want(t, "a policy", "10.32.0.1", true)
		b.want(t, "a pod of another node", "10.32.0.2", false)

		// A new pod is admitted once its policies are in force, before the API server knows its address.
		created := newPod("new", "node1", map[string]string{"app": "web"})
		if _, err := b.api.CoreV1().Pods("ns").Create(ctx, created, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		in := api.Admission{Namespace: "ns", Name: "new", UID: "uid-new", IPs: []netip.Addr{netip.MustParseAddr("10.32.0.3")}}
		in.Owner, in.MAC = holder.ForContainer("net", "c0ffee", "eth0").String(), ether.Addr{2, 0, 0, 1, 2, 3}
		if w := admitted(e, in); w.Code != http.StatusOK {
			t.Fatalf("admission: %d %s", w.Code, w.Body)
		}
		b.want(t, "an admitted pod", "10.32.0.3", true)

		// The agent still knows the pod after a restart.
		again, err := openAttachments(b.cfg.RunDir)
		if err != nil || len(again.all()) != 1 {
			t.Errorf("attachments after a restart: %v, %v", again.all(), err)
		}

		// The rules name its port, and its link-local address as that of a pod without IPv6.
		link, _ := holder.Parse(in.Owner).HostLink()
		if got := again.all()[podKey{Namespace: "ns", Name: "new"}]; got.Link != link || link == "" || got.MAC != in.MAC {
			t.Errorf("attachment %+v, want port %q", got, link)
		}
		if port := b.filter.link(link); !slices.Equal(port.Addrs, in.IPs) || port.Chains.Ingress == "" || port.Chains.Egress != "" {
			t.Errorf("port %s: %+v", link, port)
		}
		b.want(t, "the link-local address of an admitted pod", in.MAC.LinkLocal().String(), true)

		b.filter.flush()
		time.Sleep(5 * time.Second)
		b.want(t, "after the rules were flushed", "10.32.0.1", true)

		before := b.filter.applied
		time.Sleep(time.Minute)
		if b.filter.applied != before {
			t.Error("the rules are set without a change")
		}
		if err := b.api.CoreV1().Pods("ns").Delete(ctx, "new", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		if err := b.api.NetworkingV1().NetworkPolicies("ns").Delete(ctx, "np", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		b.want(t, "without the policy", "10.32.0.1", false)
		if left := e.attached.all(); len(left) > 0 {
			t.Errorf("attachments of deleted pods: %v", left)
		}
	})
}

// TestNotified: flushed rules are set again within a second of the notification, and many notifications need few checks.
func TestNotified(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, isolate("np", "web"),
			newPod("web", "node1", map[string]string{"app": "web"}, "10.32.0.1"))
		notifications := make(fakeChanges, 1)
		b.cfg.FilterChanges = notifications
		e, stop := b.enforcing(t)
		defer stop()
		for i := range uint64(3) {
			b.filter.flush()
			notifications <- struct{}{}
			time.Sleep(intactPause + time.Millisecond)
			b.want(t, "after a notification", "10.32.0.1", true)
			if got := e.restored.Load(); got != i+1 {
				t.Errorf("restored %d times, want %d", got, i+1)
			}
		}
		before := b.filter.checks()
		for range 1000 {
			notifications <- struct{}{}
			time.Sleep(time.Millisecond)
		}
		if n := b.filter.checks() - before; n == 0 || n > 10 {
			t.Errorf("%d checks for 1000 notifications in a second", n)
		}
	})
}

// TestAdmissionFails: a pod that the API server does not know, and a pod with rules that cannot be set, are refused.
func TestAdmissionFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, newPod("p", "node1", nil), isolate("np", "p"))
		e, stop := b.enforcing(t)
		defer stop()
		in := api.Admission{Namespace: "ns", Name: "unknown", IPs: []netip.Addr{netip.MustParseAddr("10.32.0.9")}}
		if w := admitted(e, in); w.Code != http.StatusGatewayTimeout || !strings.Contains(w.Body.String(), "ns/unknown") {
			t.Errorf("an unknown pod: %d %s", w.Code, w.Body)
		}
		b.filter.mu.Lock()
		b.filter.fail = errors.New("no nft")
		b.filter.mu.Unlock()
		patch := []byte(`{"metadata":{"labels":{"app":"p"}}}`)
		pods := b.api.CoreV1().Pods("ns")
		if _, err := pods.Patch(t.Context(), "p", "application/merge-patch+json", patch, metav1.PatchOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		in.Name = "p"
		if w := admitted(e, in); w.Code != http.StatusGatewayTimeout {
			t.Errorf("a pod with rules that cannot be set: %d %s", w.Code, w.Body)
		}
		if e.health.get(checkPolicies) == nil {
			t.Error("ready for pods although the filter fails")
		}
		b.filter.mu.Lock()
		b.filter.fail = nil
		b.filter.mu.Unlock()
		time.Sleep(5 * time.Second)
		b.want(t, "once it works", "10.32.0.9", true)
		if w := admitted(e, api.Admission{}); w.Code != http.StatusBadRequest {
			t.Errorf("a request without a pod: %d", w.Code)
		}
	})
}

// TestProblemIsAnEvent: an invalid policy is reported once.
func TestProblemIsAnEvent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		np := isolate("bad", "web")
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
			PodSelector: &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{{Key: "a", Operator: "Like"}}},
		}}}}
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, np,
			newPod("web", "node1", map[string]string{"app": "web"}, "10.32.0.1"), newPod("other", "node1", nil, "10.32.0.2"))
		_, stop := b.enforcing(t)
		defer stop()
		b.want(t, "the pods of a bad policy", "10.32.0.1", true)
		b.want(t, "other pods", "10.32.0.2", false)
		time.Sleep(time.Minute)
		events, err := b.api.CoreV1().Events("ns").List(t.Context(), metav1.ListOptions{})
		if err != nil || len(events.Items) != 1 || events.Items[0].InvolvedObject.Name != "bad" ||
			!strings.Contains(events.Items[0].Message, "podSelector") {
			t.Errorf("events %+v, %v", events.Items, err)
		}
	})
}

// TestAddressGivenAgain: an address that a pod being deleted still shows belongs to the new pod that has it.
func TestAddressGivenAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		old := newPod("old", "node1", map[string]string{"app": "free"}, "10.32.0.1")
		now := metav1.Now()
		old.DeletionTimestamp, old.Finalizers = &now, []string{"test/keep"}
		remote := newPod("remote-old", "node2", map[string]string{"app": "free"}, "10.32.0.2")
		remote.DeletionTimestamp, remote.Finalizers = &now, []string{"test/keep"}
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, isolate("np", "web"), old, remote,
			newPod("new", "node1", map[string]string{"app": "web"}), newPod("remote-new", "node2", map[string]string{"app": "web"}, "10.32.0.2"))
		e, stop := b.enforcing(t)
		defer stop()
		b.want(t, "the old pod", "10.32.0.1", false)
		in := api.Admission{Namespace: "ns", Name: "new", UID: "uid-new", IPs: []netip.Addr{netip.MustParseAddr("10.32.0.1")}}
		if w := admitted(e, in); w.Code != http.StatusOK {
			t.Fatalf("admission: %d %s", w.Code, w.Body)
		}
		b.want(t, "the new pod", "10.32.0.1", true)
		if got := e.claims.name(netip.MustParseAddr("10.32.0.2")); got != "ns/remote-new" {
			t.Errorf("the address of a pod on another node belongs to %s", got)
		}
	})
}

// TestHostNetworkOfANode: a policy that allows an address of a node also allows the address of its bridge, from which its host network
// comes.
func TestHostNetworkOfANode(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		np := isolate("np", "web")
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
			IPBlock: &networkingv1.IPBlock{CIDR: "172.30.0.12/32"},
		}}}}
		node := newNode("node2", "172.30.0.12", 2)
		node.Annotations[AddressesAnnotation] = "10.32.128.1,wrong"
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, np, node,
			newPod("web", "node1", map[string]string{"app": "web"}, "10.32.0.1"))
		_, stop := b.enforcing(t)
		defer stop()
		b.filter.mu.Lock()
		defer b.filter.mu.Unlock()
		want := []netip.Prefix{netip.MustParsePrefix("10.32.128.1/32"), netip.MustParsePrefix("172.30.0.12/32")}
		for name, set := range b.filter.rules.Sets {
			if !slices.Equal(set.Prefixes, want) {
				t.Errorf("set %s: %v, want %v", name, set.Prefixes, want)
			}
		}
		if len(b.filter.rules.Sets) != 1 {
			t.Errorf("sets %v", b.filter.rules.Sets)
		}
	})
}

// serve makes the API server of a bench have kinds of administrator policies, and returns the resource of the first.
func (b *bench) serve(version string, resources ...string) schema.GroupVersionResource {
	group := schema.GroupVersion{Group: "policy.networking.k8s.io", Version: version}
	list := &metav1.APIResourceList{GroupVersion: group.String()}
	kinds := map[schema.GroupVersionResource]string{}
	for _, r := range resources {
		list.APIResources = append(list.APIResources, metav1.APIResource{Name: r})
		kinds[group.WithResource(r)] = r + "List"
	}
	b.api.Resources = append(b.api.Resources, list)
	b.cfg.Dynamic = dynamicfake.NewSimpleDynamicClientWithCustomListKinds(runtime.NewScheme(), kinds)
	return group.WithResource(resources[0])
}

// TestAdminPolicies: administrator policies are enforced once the cluster has the kind, except those of another release.
func TestAdminPolicies(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		good := map[string]any{
			"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": map[string]any{"name": "good"},
			"spec": map[string]any{
				"priority": int64(1), "subject": map[string]any{"namespaces": map[string]any{}},
				"ingress": []any{map[string]any{"action": "Deny", "from": []any{map[string]any{"namespaces": map[string]any{}}}}},
			},
		}
		old := map[string]any{
			"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": map[string]any{"name": "old"},
			"spec": map[string]any{
				"priority": int64(2), "subject": map[string]any{"namespaces": map[string]any{"namespaceSelector": map[string]any{}}},
			},
		}
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, newPod("web", "node1", nil, "10.32.0.1"))
		adminPolicies := b.serve("v1alpha1", "adminnetworkpolicies", "baselineadminnetworkpolicies")
		e, stop := b.enforcing(t)
		defer stop()
		b.want(t, "without policies", "10.32.0.1", false)
		for _, object := range []map[string]any{good, old} {
			u := &unstructured.Unstructured{Object: object}
			if _, err := b.cfg.Dynamic.Resource(adminPolicies).Create(t.Context(), u, metav1.CreateOptions{}); err != nil {
				t.Fatal(err)
			}
		}
		time.Sleep(2 * time.Minute)
		b.want(t, "an AdminNetworkPolicy", "10.32.0.1", true)
		e.mu.Lock()
		defer e.mu.Unlock()
		for p := range e.reported {
			if p.Name != "old" || !strings.Contains(p.Message, "namespaceSelector") {
				t.Errorf("problem %+v", p)
			}
		}
		if len(e.reported) != 1 {
			t.Errorf("problems %v", e.reported)
		}
	})
}
