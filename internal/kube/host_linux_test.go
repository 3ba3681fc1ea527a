package kube

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"weft/internal/api"
	"weft/internal/kube/bridgenf"
	"weft/internal/kube/firewall"
	"weft/internal/leases/holder"
	"weft/internal/nettest"
	"weft/internal/nettest/labtest"
)

// TestRestoredOnHost: on a real host, flushed rules and settings of bridged packets are restored on notification. The rules name the
// port of an admitted pod, and that of a pod that was attached without a report of its port.
func TestRestoredOnHost(t *testing.T) {
	h := labtest.AddHost(t, labtest.New(t, nettest.Config{}), "host")
	pod := labtest.AddPod(t, h, "pod")
	owner := holder.ForContainer("weft", "c0ffee", "eth0")
	link, _ := owner.HostLink()
	for _, line := range []string{
		"ip link add weave type bridge", "ip link set weave up",
		"ip link add vweftold type veth peer name eth0 netns " + pod.Name(), "ip link set vweftold master weave up",
	} {
		labtest.Run(t, h.Space, strings.Fields(line)...)
	}
	labtest.Run(t, pod.Space, "ip", "addr", "add", "10.32.0.1/12", "dev", "eth0")
	b := newBench(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "ns"}}, isolate("np", "web"),
		newPod("old", "node1", map[string]string{"app": "web"}, "10.32.0.1"), newPod("new", "node1", map[string]string{"app": "web"}))
	b.daemon.status.Bridge = "weave"
	b.cfg.Bridged = bridgenf.Keeper{PortPrefix: "vweft", Dir: bridgenf.Settings}
	var filter *firewall.NFT
	if err := h.Do(func() (err error) { filter, err = firewall.New(t.Context()); return err }); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = filter.Close() }()
	b.cfg.Filter, b.cfg.FilterChanges, b.cfg.Links = filter, filter, HostLinks{}
	c, err := newCluster(b.cfg)
	if err != nil {
		t.Fatal(err)
	}
	e, err := newEnforcer(b.cfg, c, &health{})
	if err != nil {
		t.Fatal(err)
	}
	e.period = time.Hour // only notifications can help
	ctx, cancel := context.WithCancel(t.Context())
	settings := &bridged{settings: b.cfg.Bridged, health: &health{}, log: b.cfg.Log}
	parts := []func() error{
		func() error { return c.Run(ctx) },
		func() error { return h.Do(func() error { return e.run(ctx) }) },
		func() error { return h.Do(func() error { return settings.run(ctx) }) },
	}
	done := make(chan error, len(parts))
	for _, run := range parts {
		go func() { done <- run() }()
	}
	defer func() {
		cancel()
		for range parts {
			if err := <-done; err != nil && !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
		}
	}()

	in := api.Admission{
		Namespace: "ns", Name: "new", UID: "uid-new", Owner: owner.String(), IPs: []netip.Addr{netip.MustParseAddr("10.32.0.2")},
	}
	if w := admitted(e, in); w.Code != http.StatusOK {
		t.Fatalf("admission: %d %s", w.Code, w.Body)
	}
	inForce := func() error {
		text, err := h.Run(t.Context(), "nft", "list", "ruleset")
		for _, want := range []string{`"` + link + `" . 10.32.0.2`, `"vweftold" . 10.32.0.1`, "10.32.0.2 : jump", "ct direction reply accept"} {
			if err == nil && !strings.Contains(text, want) {
				err = fmt.Errorf("no %s in the rules:\n%s", want, text)
			}
		}
		return err
	}
	if err := inForce(); err != nil {
		t.Fatal(err)
	}
	for _, cmd := range []string{"nft flush ruleset", "nft delete table bridge weft-policy", "nft flush chain inet weft-policy forward"} {
		labtest.Run(t, h.Space, strings.Fields(cmd)...)
		labtest.Until(t, 10*time.Second, inForce)
	}
	for _, sysctl := range []string{"net.bridge.bridge-nf-call-iptables", "net.bridge.bridge-nf-call-ip6tables"} {
		labtest.Run(t, h.Space, "sysctl", "-qw", sysctl+"=0")
		labtest.Until(t, 10*time.Second, func() error {
			if got := labtest.Run(t, h.Space, "sysctl", "-n", sysctl); strings.TrimSpace(got) != "1" {
				return fmt.Errorf("%s is %s", sysctl, got)
			}
			return nil
		})
	}
	if e.restored.Load() == 0 {
		t.Error("restored rules are not counted")
	}
	if n := settings.restored.Load(); n != 2 {
		t.Errorf("%d settings were restored, want 2", n)
	}
}
