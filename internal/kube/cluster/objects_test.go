package cluster

import (
	"slices"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/tools/cache"
	"sigs.k8s.io/network-policy-api/apis/v1alpha1"

	"weft/internal/kube/policy"
)

// TestPorts: the ports of containers and of sidecars (init containers that go on) have names, those of other init containers have not.
func TestPorts(t *testing.T) {
	port := func(name string, number int32) []corev1.ContainerPort {
		return []corev1.ContainerPort{{Name: name, ContainerPort: number}, {ContainerPort: number + 1}}
	}
	always, onFailure := corev1.ContainerRestartPolicyAlways, corev1.ContainerRestartPolicyOnFailure
	pod := &corev1.Pod{}
	pod.Spec.InitContainers = []corev1.Container{
		{Name: "init", Ports: port("setup", 1000)}, {Name: "once", RestartPolicy: &onFailure, Ports: port("once", 1500)},
		{Name: "sidecar", RestartPolicy: &always, Ports: port("mesh", 2000)},
	}
	pod.Spec.Containers = []corev1.Container{{Name: "app", Ports: port("http", 3000)}}
	want := []policy.Port{{Name: "mesh", Protocol: "TCP", Number: 2000}, {Name: "http", Protocol: "TCP", Number: 3000}}
	if got := newPod(pod, nil).Ports; !slices.Equal(got, want) {
		t.Errorf("ports %v, want %v", got, want)
	}
}

// TestStrip: what is kept has the key of the object for caches, is kept as it is when it is stripped again, and pods with equal labels
// share them.
func TestStrip(t *testing.T) {
	f := strip([]string{"kept"})
	pod := func(name string) *Pod {
		o, err := f(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{
			Namespace: "ns", Name: name, UID: "u", ResourceVersion: "7", Labels: map[string]string{"app": "a", "tier": "b"},
			Annotations: map[string]string{"kept": "yes", "other": "no"},
		}})
		p, ok := o.(*Pod)
		if err != nil || !ok {
			t.Fatalf("%T, %v", o, err)
		}
		return p
	}
	a, b := pod("a"), pod("b")
	if key, err := cache.MetaNamespaceKeyFunc(a); key != "ns/a" || err != nil {
		t.Errorf("key %q, %v", key, err)
	}
	if version := a.GetObjectMeta().GetResourceVersion(); version != "7" {
		t.Errorf("version %q", version)
	}
	if again, _ := f(a); again != any(a) {
		t.Error("a pod that was stripped is stripped again")
	}
	if len(a.Annotations) != 1 || a.Annotations["kept"] != "yes" {
		t.Errorf("annotations %v", a.Annotations)
	}
	a.Labels["shared"] = "yes"
	if b.Labels["shared"] != "yes" {
		t.Error("equal labels are in memory twice")
	}
}

// TestSame: each change that matters is one, and a report of the kubelet is none.
func TestSame(t *testing.T) {
	pod := func(change func(*corev1.Pod)) *Pod {
		p := &corev1.Pod{}
		p.Spec.NodeName, p.Status.PodIPs = "node1", []corev1.PodIP{{IP: "10.32.0.1"}}
		change(p)
		stripped, _ := strip([]string{"kept"})(p)
		return stripped.(*Pod) //nolint:forcetypeassert // a pod
	}
	before := pod(func(*corev1.Pod) {})
	now := metav1.Now()
	for name, c := range map[string]struct {
		change func(*corev1.Pod)
		same   bool
	}{
		"status":     {func(p *corev1.Pod) { p.Status.Message = "x"; p.ResourceVersion = "9" }, true},
		"label":      {func(p *corev1.Pod) { p.Labels = map[string]string{"a": "b"} }, false},
		"annotation": {func(p *corev1.Pod) { p.Annotations = map[string]string{"kept": "b"} }, false},
		"address":    {func(p *corev1.Pod) { p.Status.PodIPs[0].IP = "10.32.0.2" }, false},
		"end":        {func(p *corev1.Pod) { p.Status.Phase = corev1.PodFailed }, false},
		"deletion":   {func(p *corev1.Pod) { p.DeletionTimestamp = &now }, false},
		"node":       {func(p *corev1.Pod) { p.Spec.NodeName = "node2" }, false},
		"port": {func(p *corev1.Pod) {
			p.Spec.Containers = []corev1.Container{{Ports: []corev1.ContainerPort{{Name: "p"}}}}
		}, false},
	} {
		if got := pod(c.change).same(before); got != c.same {
			t.Errorf("%s: same %v, want %v", name, got, c.same)
		}
	}
}

// TestForeignPolicy: of a ClusterNetworkPolicy with unknown fields the rest counts, with a problem; other kinds are left out.
func TestForeignPolicy(t *testing.T) {
	spec := map[string]any{
		"tier": "Admin", "priority": int64(1), "subject": map[string]any{"namespaces": map[string]any{}},
		"egress": []any{map[string]any{"action": "Deny", "to": []any{map[string]any{"planets": map[string]any{}}}}},
	}
	u := &unstructured.Unstructured{Object: map[string]any{
		"kind": "ClusterNetworkPolicy", "metadata": map[string]any{"name": "p"}, "spec": spec,
	}}
	f, ok := readCluster(u).(*foreign)
	if !ok || f.err == nil || f.policy == nil || len(f.policy.Spec.Egress) != 1 || len(f.policy.Spec.Egress[0].To) != 1 {
		t.Errorf("%+v", f)
	}
	u.SetKind("AdminNetworkPolicy")
	if f, ok := read[v1alpha1.AdminNetworkPolicy](u).(*foreign); !ok || f.policy != nil {
		t.Errorf("%+v", f)
	}
}
