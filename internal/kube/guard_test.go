package kube

import (
	"encoding/json"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"weft/internal/api"
	"weft/internal/kube/cluster"
)

var samePrefixes = cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })

func TestGuardOf(t *testing.T) {
	for _, c := range []struct {
		guard, allow string
		want         api.Admitted
		wrong        bool
	}{
		{"", "", api.Admitted{}, false},
		{"pods", "", api.Admitted{Guard: api.GuardPods}, false},
		{"off", "", api.Admitted{Guard: api.GuardOff}, false},
		{"false", "", api.Admitted{}, true},
		{"", "10.32.0.100, fd32::/64", api.Admitted{
			Allow: []netip.Prefix{netip.MustParsePrefix("10.32.0.100/32"), netip.MustParsePrefix("fd32::/64")},
		}, false},
		{"", "10.32.0.100,all", api.Admitted{Allow: []netip.Prefix{netip.MustParsePrefix("10.32.0.100/32")}}, true},
		{"off", "224.0.0.1", api.Admitted{Guard: api.GuardOff}, true},
	} {
		got, err := guardOf(&cluster.Pod{Annotations: map[string]string{GuardAnnotation: c.guard, AllowAnnotation: c.allow}})
		if diff := cmp.Diff(c.want, got, samePrefixes); diff != "" || (err != nil) != c.wrong {
			t.Errorf("%q, %q: %v (-want +got):\n%s", c.guard, c.allow, err, diff)
		}
	}
}

// TestGuardAnnotations: the plugin gets the annotations of a new pod, and the daemon their changes.
func TestGuardAnnotations(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := newPod("p", "node1", nil)
		p.Annotations = map[string]string{GuardAnnotation: "off"}
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, p)
		b.daemon.unknown = true
		e, stop := b.enforcing(t)
		defer stop()
		owner := "cni/weft/c/eth0"
		ips := []netip.Addr{netip.MustParseAddr("10.32.0.3")}
		w := admitted(e, api.Admission{Namespace: "ns", Name: "p", UID: "uid-p", Owner: owner, IPs: ips})
		var got api.Admitted
		if err := json.Unmarshal(w.Body.Bytes(), &got); w.Code != http.StatusOK || err != nil || got.Guard != api.GuardOff {
			t.Fatalf("admission: %d %s, %v", w.Code, w.Body, err)
		}
		last := func() (r api.GuardRequest) {
			b.daemon.with(func(d *fakeDaemon) {
				if len(d.guarded) > 0 {
					r = d.guarded[len(d.guarded)-1]
				}
			})
			return r
		}
		time.Sleep(time.Minute)
		b.daemon.with(func(d *fakeDaemon) { d.unknown = false }) // the plugin has guarded it
		time.Sleep(5 * time.Second)
		if r := last(); r.Owner != owner || r.Guard != api.GuardOff {
			t.Errorf("after the admission: %+v", r)
		}
		patch := func(text string) {
			t.Helper()
			_, err := b.api.CoreV1().Pods("ns").Patch(t.Context(), "p", types.MergePatchType, []byte(text), metav1.PatchOptions{})
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		patch(`{"metadata": {"annotations": {"weft.network/guard": null, "weft.network/allowed-addresses": "10.50.0.0/24"}}}`)
		want := api.GuardRequest{Owner: owner, Guard: api.GuardPods, Allow: []netip.Prefix{netip.MustParsePrefix("10.50.0.0/24")}}
		if diff := cmp.Diff(want, last(), samePrefixes); diff != "" {
			t.Errorf("after a change (-want +got):\n%s", diff)
		}
		b.daemon.with(func(d *fakeDaemon) { d.away = true })
		patch(`{"metadata": {"annotations": {"weft.network/guard": "off"}}}`)
		b.daemon.with(func(d *fakeDaemon) { d.away = false })
		time.Sleep(5 * time.Second)
		if r := last(); r.Guard != api.GuardOff {
			t.Errorf("after the daemon is back: %+v", r)
		}
		count := func() (n int) { b.daemon.with(func(d *fakeDaemon) { n = len(d.guarded) }); return n }
		before := count()
		time.Sleep(time.Minute)
		if count() != before {
			t.Error("requests without a change")
		}
	})
}

// TestGuardOfOldPods: pods that an older plugin attached, with or without an announcement, are guarded by their addresses.
func TestGuardOfOldPods(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		opened, announced := newPod("opened", "node1", nil, "10.32.0.3"), newPod("announced", "node1", nil, "10.32.0.4")
		opened.Annotations = map[string]string{GuardAnnotation: "off"}
		host := newPod("host", "node1", nil, "192.0.2.1")
		host.Spec.HostNetwork = true
		far := newPod("far", "node2", nil, "10.32.0.5")
		b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, opened, announced, host, far)
		b.cfg.Install.Guard = api.GuardPods
		e, stop := b.enforcing(t)
		defer stop()
		admitted(e, api.Admission{Namespace: "ns", Name: "announced", UID: "uid-announced", IPs: []netip.Addr{netip.MustParseAddr("10.32.0.4")}})
		time.Sleep(5 * time.Second)
		got := map[string]api.GuardMode{}
		b.daemon.with(func(d *fakeDaemon) {
			for _, r := range d.guarded {
				if r.Owner != "" || len(r.IPs) != 1 {
					t.Errorf("request %+v", r)
					continue
				}
				got[r.IPs[0].String()] = r.Guard
			}
		})
		if diff := cmp.Diff(map[string]api.GuardMode{"10.32.0.3": api.GuardOff, "10.32.0.4": api.GuardPods}, got); diff != "" {
			t.Errorf("guarded (-want +got):\n%s", diff)
		}
	})
}
