package kube

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	dynamicfake "k8s.io/client-go/dynamic/fake"
	clienttesting "k8s.io/client-go/testing"

	"weft/internal/api"
	"weft/internal/leases/holder"
)

// admission returns the plugin's announcement of a pod, with the address 10.32.0.9.
func admission(name, uid string) api.Admission {
	return api.Admission{
		Namespace: "ns", Name: name, UID: uid, IPs: []netip.Addr{netip.MustParseAddr("10.32.0.9")},
		Owner: holder.ForContainer("net", "c0ffee", "eth0").String(),
	}
}

// TestAdmissionBeforeThePod: a pod that the plugin announces before the API server does is admitted with its policies, also if a pod of its
// name was there before, and if the agent has just started.
func TestAdmissionBeforeThePod(t *testing.T) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}
	for name, first := range map[string][]runtime.Object{
		"alone":                   {ns, isolate("np", "web")},
		"one of its name is gone": {ns, isolate("np", "web"), newPod("web-0", "node1", map[string]string{"app": "web"}, "10.32.0.1")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, first...)
				e, stop := b.enforcing(t)
				defer stop()
				answer := make(chan *httptest.ResponseRecorder)
				go func() { answer <- admitted(e, admission("web-0", "uid-second")) }()
				time.Sleep(20 * time.Millisecond)
				pods := b.api.CoreV1().Pods("ns")
				_ = pods.Delete(t.Context(), "web-0", metav1.DeleteOptions{})
				time.Sleep(3 * time.Second)
				p := newPod("web-0", "node1", map[string]string{"app": "web"})
				p.UID = "uid-second"
				if _, err := pods.Create(t.Context(), p, metav1.CreateOptions{}); err != nil {
					t.Fatal(err)
				}
				if w := <-answer; w.Code != http.StatusOK {
					t.Fatalf("admission: %d %s", w.Code, w.Body)
				}
				b.want(t, "an admitted pod", "10.32.0.9", true)
				time.Sleep(time.Minute)
				b.want(t, "later", "10.32.0.9", true)
			})
		})
	}
}

// TestNoPod: nothing stays of the announcement of a pod that does not come, and a pod that it had the address of has lost it.
func TestNoPod(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, isolate("np", "web"),
			newPod("old", "node1", map[string]string{"app": "web"}))
		e, stop := b.enforcing(t)
		defer stop()
		if w := admitted(e, admission("old", "uid-old")); w.Code != http.StatusOK {
			t.Fatalf("admission: %d %s", w.Code, w.Body)
		}
		if w := admitted(e, admission("new", "uid-new")); w.Code != http.StatusGatewayTimeout {
			t.Fatalf("admission of no pod: %d %s", w.Code, w.Body)
		}
		time.Sleep(time.Second)
		if left := e.attached.all(); len(left) > 0 {
			t.Errorf("attachments %v", left)
		}
		if name := e.claims.name(netip.MustParseAddr("10.32.0.9")); name != "" {
			t.Errorf("the address belongs to %s", name)
		}
	})
}

// TestForcedDeletion: the policies of a pod stay in force after its object is deleted, as long as its port is there.
func TestForcedDeletion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var port atomic.Bool
		port.Store(true)
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, isolate("np", "web"),
			newPod("web", "node1", map[string]string{"app": "web"}))
		b.cfg.Links = fakeLinks(func(string) bool { return port.Load() })
		e, stop := b.enforcing(t)
		defer stop()
		admitted(e, admission("web", "uid-web"))
		if err := b.api.CoreV1().Pods("ns").Delete(t.Context(), "web", metav1.DeleteOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		b.want(t, "its sandbox still runs", "10.32.0.9", true)
		port.Store(false)
		time.Sleep(5 * time.Second)
		b.want(t, "its sandbox is gone", "10.32.0.9", false)
		if left := e.attached.all(); len(left) > 0 {
			t.Errorf("attachments %v", left)
		}
	})
}

// TestFailureLosesNothing: what changed while the rules could not be set reaches the daemon once they can.
func TestFailureLosesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, isolate("np", "web"),
			newPod("web", "node1", map[string]string{"app": "web"}, "10.32.0.1"))
		_, stop := b.enforcing(t)
		defer stop()
		fail := func(err error) {
			b.filter.mu.Lock()
			defer b.filter.mu.Unlock()
			b.filter.fail = err
		}
		fail(errors.New("no nft"))
		p := newPod("web", "node1", map[string]string{"app": "other"}, "10.32.0.1")
		p.Annotations = map[string]string{GuardAnnotation: "off"}
		if _, err := b.api.CoreV1().Pods("ns").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		time.Sleep(3 * time.Second)
		fail(nil)
		time.Sleep(time.Minute)
		b.want(t, "once the rules can be set", "10.32.0.1", false)
		b.daemon.with(func(d *fakeDaemon) {
			if n := len(d.guarded); n == 0 || d.guarded[n-1].Guard != api.GuardOff {
				t.Errorf("the daemon got %+v", d.guarded)
			}
		})
	})
}

// TestAdminPoliciesFirst: no rules are set before the kinds of administrator policies are read, whatever the API server answers first.
func TestAdminPoliciesFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, newPod("web", "node1", nil, "10.32.0.1"))
		b.serve("v1beta1", "clusternetworkpolicies")
		dynamic, _ := b.cfg.Dynamic.(*dynamicfake.FakeDynamicClient)
		var refuse atomic.Bool
		refuse.Store(true)
		dynamic.PrependReactor("list", "clusternetworkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
			return refuse.Load(), nil, errors.New("forbidden")
		})
		e, stop := b.enforcing(t)
		defer stop()
		time.Sleep(time.Minute)
		if _, set := b.filter.of("10.32.0.1"); set {
			t.Error("rules are set without the policies that cannot be read")
		}
		if err := e.health.get(checkPolicies); err == nil || err.Error() != "policies: the API server has not listed: clusternetworkpolicies" {
			t.Errorf("health: %v", err)
		}
		refuse.Store(false)
		time.Sleep(2 * time.Minute)
		b.want(t, "once they can be read", "10.32.0.1", false)
		if err := e.health.get(checkPolicies); err != nil {
			t.Errorf("health: %v", err)
		}
	})
}
