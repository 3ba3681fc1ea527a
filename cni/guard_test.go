package cni_test

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"weft/cni"
	"weft/internal/api"
	"weft/internal/ether"
)

// sameAddrs compares addresses and prefixes by value.
var sameAddrs = cmp.Options{
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
}

// TestGuard: the daemon learns what a container may send, as its configuration and its annotations say.
func TestGuard(t *testing.T) {
	vip := netip.MustParsePrefix("10.32.0.100/32")
	block := netip.MustParsePrefix("10.50.0.0/24")
	for _, c := range []struct {
		name, config string
		admits       api.Admitted
		guard        api.GuardMode
		allow        []netip.Prefix
	}{
		{name: "as the daemon does", config: `{}`},
		{name: "bound", config: `{"guard": "pods"}`, guard: api.GuardPods},
		{name: "open", config: `{"guard": "off"}`, guard: api.GuardOff},
		{name: "further addresses", config: `{"guard": "pods", "allow": ["10.32.0.100"]}`, guard: api.GuardPods, allow: []netip.Prefix{vip}},
		{
			name: "opened by an annotation", config: `{"guard": "pods", "policy": "/kube"}`,
			admits: api.Admitted{Guard: api.GuardOff}, guard: api.GuardOff,
		},
		{
			name: "further addresses by an annotation", config: `{"guard": "pods", "policy": "/kube", "allow": ["10.32.0.100"]}`,
			admits: api.Admitted{Allow: []netip.Prefix{block}}, guard: api.GuardPods, allow: []netip.Prefix{vip, block},
		},
	} {
		b := newBench()
		b.daemon.admits = c.admits
		a := args(c.config)
		a.Args = "K8S_POD_NAMESPACE=ns;K8S_POD_NAME=p"
		b.add(t, a)
		ip, ip6 := netip.MustParseAddr("10.32.0.2"), netip.MustParseAddr("fd32::2")
		want := []api.GuardRequest{{Owner: owner, MAC: ether.FromIP(ip), IPs: []netip.Addr{ip, ip6}, Guard: c.guard, Allow: c.allow}}
		if diff := cmp.Diff(want, b.daemon.guarded, sameAddrs); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.name, diff)
		}
	}
	b := newBench()
	wantCode(t, "a bad address", b.plugin.Add(args(`{"allow": ["x"]}`)), types.ErrInvalidNetworkConfig)
	b.wantNothing(t, "a bad address")
}

// TestGuardFails: a container that cannot be guarded gets no interface.
func TestGuardFails(t *testing.T) {
	for _, c := range []struct {
		config string
		err    error
		code   uint // 0: success
	}{
		{`{"guard": "pods"}`, &api.Problem{Kind: api.KindRefused, Detail: "no nftables"}, cni.CodeRefused},
		{`{}`, &api.Problem{Kind: api.KindRefused, Detail: "no nftables"}, cni.CodeRefused},
		{`{"guard": "pods"}`, fmt.Errorf("%w: 404", api.ErrOldDaemon), types.ErrTryAgainLater},
		{`{"guard": "off"}`, fmt.Errorf("%w: 404", api.ErrOldDaemon), 0},
		{`{}`, fmt.Errorf("%w: 404", api.ErrOldDaemon), 0},
	} {
		b := newBench()
		b.daemon.guardErr = c.err
		what := fmt.Sprintf("%s with %v", c.config, c.err)
		err := b.plugin.Add(args(c.config))
		if c.code == 0 {
			if err != nil {
				t.Errorf("%s: %v", what, err)
			}
			continue
		}
		wantCode(t, what, err, c.code)
		b.wantNothing(t, what)
	}
}

// TestDelegatedUnguard: DEL of a container with addresses of another plugin ends its guard, and succeeds without the daemon.
func TestDelegatedUnguard(t *testing.T) {
	b := newDelegated(t, `{"cniVersion": "1.0.0", "ips": [{"address": "10.9.0.2/24"}]}`)
	a := args(`{"guard": "pods", "ipam": {"type": "static"}}`)
	b.add(t, a)
	ip := netip.MustParseAddr("10.9.0.2")
	if got := b.daemon.guarded; len(got) != 1 || len(got[0].IPs) != 1 || got[0].IPs[0] != ip || got[0].MAC != ether.FromIP(ip) {
		t.Errorf("guarded: %+v", got)
	}
	if err := b.plugin.Del(a); err != nil || !cmp.Equal(b.daemon.unguarded, []string{owner}) {
		t.Errorf("DEL: %v, unguarded %v", err, b.daemon.unguarded)
	}
}
