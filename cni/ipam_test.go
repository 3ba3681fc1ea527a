package cni_test

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"weft/internal/podlink"
	"weft/internal/podlink/linktest"
)

const delegated = `{"ipam": {"type": "static"}}`

// newDelegated returns a plugin with addresses from an address manager that returns answer for ADD.
func newDelegated(t *testing.T, answer string) *bench {
	t.Helper()
	t.Setenv("CNI_PATH", "/opt/cni/bin")
	b := newBench()
	b.exec.answers["ADD"] = answer
	b.daemon.exposed = []netip.Prefix{netip.MustParsePrefix("10.32.0.1/12")}
	return b
}

func TestDelegated(t *testing.T) {
	b := newDelegated(t, `{"cniVersion": "1.1.0",
		"ips": [{"address": "172.30.0.5/16", "gateway": "172.30.0.1"}, {"address": "fd30::5/64"}],
		"dns": {"nameservers": ["172.30.0.1"]}}`)
	b.add(t, args(delegated))
	res := parse(t, b.out.String()).(map[string]any)
	want := parse(t, `{
		"ips": [{"address": "172.30.0.5/16", "gateway": "172.30.0.1", "interface": 2}, {"address": "fd30::5/64", "interface": 2}],
		"routes": [{"dst": "0.0.0.0/0", "gw": "172.30.0.1"}],
		"dns": {"nameservers": ["172.30.0.1"]}}`).(map[string]any)
	for key, value := range want {
		if diff := cmp.Diff(value, res[key]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", key, diff)
		}
	}
	if s := b.links.Attached()[0]; s.Bridge != "weave" || s.MTU != 1422 || s.PodMAC().String() != "0a:57:ac:1e:00:05" || !s.Origin.Delegated {
		t.Errorf("attached %+v", s)
	}
	after := args(delegated, `{"prevResult": `+b.out.String()+`}`)
	if err := b.plugin.Check(after); err != nil {
		t.Errorf("CHECK: %v", err)
	}
	if err := b.plugin.Status(args(delegated)); err != nil {
		t.Errorf("STATUS: %v", err)
	}
	if err := b.plugin.GC(args(delegated)); err != nil {
		t.Errorf("GC: %v", err)
	}
	b.daemon.fail = errNoDaemon // DEL does not need it
	if err := b.plugin.Del(after); err != nil {
		t.Errorf("DEL: %v", err)
	}
	if want := []string{"ADD", "CHECK", "STATUS", "GC", "DEL"}; !slices.Equal(b.exec.calls, want) {
		t.Errorf("the address manager was called for %v, want %v", b.exec.calls, want)
	}
	b.wantNothing(t, "DEL")
}

// TestDelegatedRoutes: the routes of an address manager replace the default routes.
func TestDelegatedRoutes(t *testing.T) {
	gw := netip.MustParseAddr("10.32.0.1")
	for name, c := range map[string]struct {
		answer string
		want   []podlink.Route
		code   uint
	}{
		"the bridge's gateway": {
			answer: `{"ips": [{"address": "10.32.0.9/12"}]}`,
			want:   []podlink.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: gw}},
		},
		"default": {
			answer: `{"ips": [{"address": "10.32.0.9/12"}], "routes": [{"dst": "0.0.0.0/0", "gw": "10.32.0.8"}]}`,
			want:   []podlink.Route{{Dst: netip.MustParsePrefix("0.0.0.0/0"), Gateway: netip.MustParseAddr("10.32.0.8")}},
		},
		"no default": {
			answer: `{"ips": [{"address": "10.32.0.9/12"}], "routes": [{"dst": "192.0.2.0/24"}]}`,
			want:   []podlink.Route{{Dst: netip.MustParsePrefix("192.0.2.0/24"), Gateway: gw}},
		},
		"priority": {
			answer: `{"ips": [{"address": "10.32.0.9/12"}], "routes": [{"dst": "192.0.2.0/24", "priority": 7}]}`,
			code:   types.ErrUnsupportedField,
		},
		"no IP": {answer: `{}`, code: types.ErrInvalidNetworkConfig},
	} {
		t.Run(name, func(t *testing.T) {
			b := newDelegated(t, `{"cniVersion": "1.1.0", `+c.answer[1:])
			if c.answer == `{}` {
				b.exec.answers["ADD"] = `{"cniVersion": "1.1.0"}`
			}
			if c.code != 0 {
				wantCode(t, "ADD", b.plugin.Add(args(delegated)), c.code)
				b.wantNothing(t, "ADD")
				return
			}
			b.add(t, args(delegated))
			s := b.links.Attached()[0]
			if got := append(s.Defaults(), s.Routes...); !slices.Equal(got, c.want) {
				t.Errorf("routes %v, want %v", got, c.want)
			}
		})
	}
}

func TestDelegatedFails(t *testing.T) {
	const answer = `{"cniVersion": "1.1.0", "ips": [{"address": "10.32.0.9/12"}]}`
	for name, c := range map[string]struct {
		set   func(b *bench)
		conf  string
		code  uint
		calls []string
	}{
		"its own code": {
			set:  func(b *bench) { b.exec.errs["ADD"] = types.NewError(105, "pool is empty", "") },
			code: 105, calls: []string{"ADD", "DEL"},
		},
		"attach fails": {
			set:  func(b *bench) { b.links.Fail(linktest.OpAttach, podlink.ErrNoBridge) },
			code: types.ErrTryAgainLater, calls: []string{"ADD", "DEL"},
		},
		"no daemon": {set: func(b *bench) { b.daemon.fail = errNoDaemon }, code: types.ErrTryAgainLater},
		"no such plugin": {
			set: func(*bench) {}, conf: `{"ipam": {"type": "nothing"}}`, code: types.ErrInvalidNetworkConfig,
		},
	} {
		b := newDelegated(t, answer)
		c.set(b)
		if c.conf == "" {
			c.conf = delegated
		}
		wantCode(t, name, b.plugin.Add(args(c.conf)), c.code)
		if !slices.Equal(b.exec.calls, c.calls) {
			t.Errorf("%s: the address manager was called for %v, want %v", name, b.exec.calls, c.calls)
		}
		b.wantNothing(t, name)
	}
}
