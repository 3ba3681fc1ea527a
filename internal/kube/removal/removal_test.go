package removal

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"weft/internal/hint"
	"weft/internal/kube"
)

// kubelets are the kubelets and the garbage collector of a cluster in memory: pods of a deleted DaemonSet end, and pods that clean hosts
// run.
type kubelets struct {
	t    *testing.T
	api  *fake.Clientset
	mu   sync.Mutex
	down map[string]bool              // nodes without a kubelet
	fate map[string][]corev1.PodPhase // what becomes of the pods of a node, in their order; empty: they succeed
	made []*corev1.Pod
}

func newNode(name string, weft bool) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Annotations: map[string]string{"other": "x"}}}
	n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}}
	if weft {
		n.Annotations[kube.PeerAnnotation] = "0123456789abcdef"
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
			Type: corev1.NodeNetworkUnavailable, Status: corev1.ConditionFalse, Reason: kube.ConditionReason,
		})
	}
	return n
}

func weftPod(node string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "weft-" + node, Labels: map[string]string{"app": "weft"}},
		Spec:       corev1.PodSpec{NodeName: node},
	}
}

func newKubelets(t *testing.T, objects ...runtime.Object) *kubelets {
	t.Helper()
	k := &kubelets{t: t, api: fake.NewClientset(objects...), down: map[string]bool{}, fate: map[string][]corev1.PodPhase{}}
	k.api.PrependReactor("create", "pods", func(a clienttesting.Action) (bool, runtime.Object, error) {
		p := a.(clienttesting.CreateAction).GetObject().(*corev1.Pod)
		k.mu.Lock()
		defer k.mu.Unlock()
		k.made = append(k.made, p.DeepCopy())
		return false, nil, nil
	})
	return k
}

// run does every 100 ms what the kubelets do, until ctx ends.
func (k *kubelets) run(ctx context.Context) {
	pods := k.api.CoreV1().Pods("kube-system")
	for ctx.Err() == nil {
		time.Sleep(100 * time.Millisecond)
		list, err := pods.List(context.WithoutCancel(ctx), metav1.ListOptions{})
		if err != nil {
			k.t.Error(err)
		}
		_, err = k.api.AppsV1().DaemonSets("kube-system").Get(ctx, "weft", metav1.GetOptions{})
		for i := range list.Items {
			p := &list.Items[i]
			switch {
			case k.down[p.Spec.NodeName]:
			case p.Labels["app"] == "weft" && err != nil:
				_ = pods.Delete(ctx, p.Name, metav1.DeleteOptions{})
			case p.Labels["app"] == podLabel && p.Status.Phase == "":
				p.Status.Phase = corev1.PodSucceeded
				if fates := k.fate[p.Spec.NodeName]; len(fates) > 0 {
					p.Status.Phase, k.fate[p.Spec.NodeName] = fates[0], fates[1:]
				}
				p.Status.ContainerStatuses = []corev1.ContainerStatus{{LastTerminationState: corev1.ContainerState{
					Terminated: &corev1.ContainerStateTerminated{Message: "a note"},
				}}}
				_, _ = pods.UpdateStatus(ctx, p, metav1.UpdateOptions{})
			}
		}
	}
}

// remove runs a removal.
func (k *kubelets) remove() error {
	k.t.Helper()
	r, err := New(Config{
		API: k.api, Namespace: "kube-system", Account: "weft-remove", Image: "localhost/weft:latest", PullPolicy: corev1.PullNever,
		StateDir: "/var/lib/weft", RunDir: "/run/weft", BinDir: "/opt/cni/bin", ConfDir: "/etc/cni/net.d", Timeout: time.Minute,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		k.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(k.t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		k.run(ctx)
	}()
	defer func() {
		cancel()
		<-done
	}()
	return r.Run(k.t.Context())
}

// clean reports whether nothing of weft is in the object of a node, and everything else is.
func (k *kubelets) clean(name string) bool {
	k.t.Helper()
	n, err := k.api.CoreV1().Nodes().Get(k.t.Context(), name, metav1.GetOptions{})
	if err != nil {
		k.t.Fatal(err)
	}
	_, annotated := n.Annotations[kube.PeerAnnotation]
	if n.Annotations["other"] != "x" || len(n.Status.Conditions) == 0 || n.Status.Conditions[0].Type != corev1.NodeReady {
		k.t.Errorf("%s has lost more than weft's: %+v", name, n)
	}
	return !annotated && len(n.Status.Conditions) == 1
}

// leftover returns the names of the pods that are there.
func (k *kubelets) leftover() (names []string) {
	k.t.Helper()
	list, err := k.api.CoreV1().Pods("kube-system").List(k.t.Context(), metav1.ListOptions{})
	if err != nil {
		k.t.Fatal(err)
	}
	for _, p := range list.Items {
		names = append(names, p.Name)
	}
	return names
}

// daemonSetObject is weft's DaemonSet.
func daemonSetObject() *appsv1.DaemonSet {
	return &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "weft"}}
}

// TestRemoval: each node with weft is cleaned once its daemon has ended, and nothing stays in the cluster; a second run has nothing to do.
func TestRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKubelets(t, daemonSetObject(), newNode("a", true), newNode("b", true), newNode("windows", false), newNode("new", false),
			weftPod("a"), weftPod("b"), weftPod("new"))
		k.fate["b"] = []corev1.PodPhase{corev1.PodFailed} // evicted at first
		if err := k.remove(); err != nil {
			t.Fatal(err)
		}
		var nodes []string
		for _, p := range k.made {
			nodes = append(nodes, p.Spec.NodeName)
		}
		slices.Sort(nodes)
		if want := []string{"a", "b", "b", "new"}; !slices.Equal(nodes, want) {
			t.Errorf("pods on %v, want %v", nodes, want)
		}
		for _, name := range []string{"a", "b", "new", "windows"} {
			if !k.clean(name) {
				t.Errorf("node %s is not clean", name)
			}
		}
		if names := k.leftover(); len(names) > 0 {
			t.Errorf("pods %v are left", names)
		}
		k.made = nil
		if err := k.remove(); err != nil || len(k.made) > 0 {
			t.Errorf("again: %v, pods %v", err, k.made)
		}
	})
}

// TestUnfinishedRemoval: nodes that do not answer are named with what they wait for, the others are cleaned, and a later run does the rest.
func TestUnfinishedRemoval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := newKubelets(t, daemonSetObject(), newNode("a", true), newNode("b", true), newNode("c", true), weftPod("a"), weftPod("b"))
		k.down["b"] = true
		k.fate["c"] = []corev1.PodPhase{corev1.PodRunning}
		err := k.remove()
		if advice, _ := hint.Of(err); err == nil || advice == "" ||
			!strings.Contains(err.Error(), "2 nodes after 1m0s: b (weft still runs: is the kubelet of the node down?), c (a note)") {
			t.Errorf("%v", err)
		}
		if !k.clean("a") || k.clean("b") || k.clean("c") {
			t.Error("only a is clean")
		}
		if names := k.leftover(); !slices.Equal(names, []string{"weft-b"}) {
			t.Errorf("pods %v are left", names)
		}
		k.down["b"] = false
		if err := k.remove(); err != nil || !k.clean("b") || !k.clean("c") {
			t.Errorf("again: %v", err)
		}
	})
}

// TestOtherCondition: the condition of another network stays.
func TestOtherCondition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := newNode("a", true)
		n.Status.Conditions[1].Reason = "RouteCreated"
		k := newKubelets(t, n)
		if err := k.remove(); err != nil {
			t.Fatal(err)
		}
		got, err := k.api.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{})
		if err != nil || len(got.Status.Conditions) != 2 || got.Annotations[kube.PeerAnnotation] != "" {
			t.Errorf("%+v, %v", got, err)
		}
	})
}

// TestForbidden: without permission nothing is removed from any node. A permission that comes a moment later counts.
func TestForbidden(t *testing.T) {
	for name, c := range map[string]struct{ refused int }{"for good": {1 << 30}, "at first": {3}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				k := newKubelets(t, daemonSetObject(), newNode("a", true))
				errForbidden := errors.New("forbidden")
				for _, resource := range []string{"nodes", "daemonsets"} {
					left := c.refused
					k.api.PrependReactor("*", resource, func(a clienttesting.Action) (bool, runtime.Object, error) {
						if a.GetVerb() != "delete" && a.GetVerb() != "list" {
							return false, nil, nil
						}
						left--
						return left >= 0, nil, errForbidden
					})
				}
				err := k.remove()
				if c.refused > 3 && (!errors.Is(err, errForbidden) || len(k.made) > 0) {
					t.Errorf("%v, pods %v", err, k.made)
				}
				if c.refused <= 3 && (err != nil || !k.clean("a")) {
					t.Errorf("%v", err)
				}
			})
		})
	}
	if _, err := New(Config{}); err == nil {
		t.Error("no image")
	}
}

// TestPod: the pod of a node has no token, and folders of the host below its own root.
func TestPod(t *testing.T) {
	p := Config{
		Namespace: "x", Image: "i", StateDir: "/var/lib/weft", RunDir: "/run/weft", BinDir: "/opt/cni/bin", ConfDir: "/etc/cni/net.d",
	}.pod(strings.Repeat("n", 253))
	c := p.Spec.Containers[0]
	if len(p.Name) > 63 || *p.Spec.AutomountServiceAccountToken || !p.Spec.HostNetwork || !*c.SecurityContext.Privileged {
		t.Errorf("%+v", p)
	}
	want := "weft-kube uninstall --host --bin-dir /host/opt/cni/bin --conf-dir /host/etc/cni/net.d --state-dir /host/var/lib/weft " +
		"--run-dir /host/run/weft --message-file /dev/termination-log"
	if got := strings.Join(c.Command, " "); got != want {
		t.Errorf("%s", got)
	}
	if podName("a") == podName("b") {
		t.Error("two nodes have one name")
	}
}
