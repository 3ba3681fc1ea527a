package cni_test

import (
	"bytes"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"weft/internal/api"
)

const named = `{"names": true}`

// namedBench is a bench of a node with names, and the log of its plugin.
func namedBench() (*bench, *bytes.Buffer) {
	b, log := newBench(), &bytes.Buffer{}
	b.daemon.domain = "pods.example.org"
	b.plugin.Logger = slog.New(slog.NewTextHandler(log, nil))
	return b, log
}

// TestNames: a container has the name that its runtime passes, for all its addresses, and asks its node for names.
func TestNames(t *testing.T) {
	for env, want := range map[string]string{
		"IgnoreUnknown=1;K8S_POD_NAME=web":                          "web", // podman
		"IgnoreUnknown=1;K8S_POD_NAMESPACE=web;K8S_POD_NAME=web":    "web", // podman 3
		"IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=3f2a1bd09c77":    "3f2a1bd09c77",
		"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0": "web-0.shop",
		"K8S_POD_NAME=web;NERDCTL_CNI_DHCP_HOSTNAME=3f2a1bd09c77":   "web",
		"K8S_POD_NAME=My_App_":                                      "my-app",
		"K8S_POD_NAME=_a._b":                                        "a.b",
		"K8S_POD_NAMESPACE=shop;NERDCTL_CNI_DHCP_HOSTNAME=b":        "b",
		"":                                       "",
		"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop": "",
		"K8S_POD_NAME=;NERDCTL_CNI_DHCP_HOSTNAME=;K8S_POD_NAMESPACE=x": "",
	} {
		b, log := namedBench()
		a := args(named)
		a.Args = env
		res := b.add(t, a)
		if !slices.Equal(res.DNS.Nameservers, []string{"10.32.0.1", "fd32::1"}) || !slices.Equal(res.DNS.Search, []string{"pods.example.org"}) {
			t.Errorf("%q: DNS %+v", env, res.DNS)
		}
		got := b.daemon.named
		if want == "" {
			if len(got) > 0 {
				t.Errorf("%q: named %+v", env, got)
			}
			continue
		}
		addrs := []netip.Addr{netip.MustParseAddr("10.32.0.2"), netip.MustParseAddr("fd32::2")}
		if len(got) != 1 || got[0].Name != want || got[0].Owner != owner || !slices.Equal(got[0].IPs, addrs) || log.Len() > 0 {
			t.Errorf("%q: named %+v, want %s; logged %s", env, got, want, log)
		}
	}
}

// TestContainersWithoutNames: no container fails because of a name, and the log says why it has none.
func TestContainersWithoutNames(t *testing.T) {
	for name, c := range map[string]struct {
		conf    string
		change  func(b *bench)
		logs    string // empty: nothing
		asks    int    // requests for a name
		servers []string
	}{
		"not configured": {conf: `{}`},
		"refused": {
			conf: named, change: func(b *bench) { b.daemon.nameErr = &api.Problem{Kind: api.KindInvalid, Detail: "not a name"} },
			logs: "not a name", asks: 1, servers: []string{"10.32.0.1", "fd32::1"},
		},
		"an older daemon": {conf: named, change: func(b *bench) { b.daemon.domain = "" }, logs: "older version"},
		"no name server":  {conf: named, change: func(b *bench) { b.daemon.silent = true }, asks: 1},
		"other resolvers": {conf: `{"names": true, "dns": {"nameservers": ["192.0.2.1"]}}`, asks: 1, servers: []string{"192.0.2.1"}},
	} {
		b, log := namedBench()
		if c.change != nil {
			c.change(b)
		}
		a := args(c.conf)
		a.Args = "K8S_POD_NAME=web"
		res := b.add(t, a)
		if len(b.daemon.named) != c.asks || !slices.Equal(res.DNS.Nameservers, c.servers) || !strings.Contains(log.String(), c.logs) ||
			c.logs == "" && log.Len() > 0 {
			t.Errorf("%s: named %v, DNS %+v, logged %q", name, b.daemon.named, res.DNS, log)
		}
	}
	b := newDelegated(t, `{"cniVersion": "1.1.0", "ips": [{"address": "172.30.0.5/16"}]}`)
	log := &bytes.Buffer{}
	b.plugin.Logger = slog.New(slog.NewTextHandler(log, nil))
	if b.add(t, args(delegated, named)); len(b.daemon.named) > 0 || !strings.Contains(log.String(), "from another plugin") {
		t.Errorf("another address manager: named %v, logged %q", b.daemon.named, log)
	}
}
