package main

import (
	"bytes"
	"net/netip"
	"testing"

	"weft/internal/api"
)

// TestLookupSaysWhyThereIsNoAnswer: a name of a node that is dead, which "weft dns list" shows, is not called unknown.
func TestLookupSaysWhyThereIsNoAnswer(t *testing.T) {
	socket := daemon(t, map[string]any{
		"/v1/names?name=web": []api.Name{}, "/v1/names?name=Web.weft.local.": []api.Name{},
		"/v1/names?name=wep": []api.Name{},
		"/v1/status":         api.Status{DNSDomain: "weft.local"},
		"/v1/names":          []api.Name{{Name: "web", IP: netip.MustParseAddr("10.32.0.9"), NodeName: "host3"}},
	})
	for name, want := range map[string]string{
		"web": "weft: \"web\" is a name of node host3, which is not alive\n" +
			"hint: Queries are answered again when that node is back: \"weft peers\" shows it.\n",
		"Web.weft.local.": "weft: \"Web.weft.local.\" is a name of node host3, which is not alive\n" +
			"hint: Queries are answered again when that node is back: \"weft peers\" shows it.\n",
		"wep": "weft: no node has added the name \"wep\"\nhint: Did you mean web? \"weft dns list\" shows all names.\n",
	} {
		var out, errs bytes.Buffer
		code := run(t.Context(), []string{"dns", "lookup", name, "--socket", socket}, &out, &errs)
		if code != 1 || errs.String() != want || out.String() != "" {
			t.Errorf("%s: exit code %d, printed %q%q, want %q", name, code, out.String(), errs.String(), want)
		}
	}
}

// TestListShowsSources: the list of names says where each comes from, also that of a daemon of a later or an older version.
func TestListShowsSources(t *testing.T) {
	for _, tt := range []struct {
		name api.Name
		want string
	}{
		{api.Name{Source: api.NameFromAttach}, "weft attach"}, {api.Name{Source: api.NameFromContainer}, "container (CNI)"},
		{api.Name{Source: api.NameFromDocker}, "Docker"}, {api.Name{Source: api.NameFromAdd}, "weft dns add"},
		{api.Name{Source: api.NameFromOwner}, "lease"}, {api.Name{Source: api.NameFromNode, NodeName: "host2"}, "node host2"},
		{api.Name{Source: "later"}, "later"}, {api.Name{}, "-"},
	} {
		if got := nameSource(tt.name); got != tt.want {
			t.Errorf("%q is %q, want %q", tt.name.Source, got, tt.want)
		}
	}
}

// TestResolvedCommand: the command for systemd-resolved has the bridge of the node with its addresses, and the domain. A host that has no
// address on the overlay gets one.
func TestResolvedCommand(t *testing.T) {
	status := api.Status{
		Bridge: "weave", DNSDomain: "pods.example.org", DNS: true,
		Exposed: []netip.Prefix{netip.MustParsePrefix("10.32.0.1/12"), netip.MustParsePrefix("fd32::1/64")},
	}
	silent, hidden := status, status
	silent.DNS, hidden.Exposed = false, nil
	for want, s := range map[string]api.Status{
		"resolvectl dns weave 10.32.0.1 fd32::1 && resolvectl domain weave '~pods.example.org'\n": status,
		"weft: this node does not answer queries\nhint: Start it without --no-dns.\n":             silent,
		"resolvectl dns weave 10.32.0.7 && resolvectl domain weave '~pods.example.org'\n":         hidden,
	} {
		var out, errs bytes.Buffer
		run(t.Context(), []string{"dns", "resolved", "--socket", daemon(t, map[string]any{
			"/v1/status": s, "/v1/expose": []api.Exposed{{Lease: api.Lease{IP: netip.MustParsePrefix("10.32.0.7/12")}}},
		})}, &out, &errs)
		if got := out.String() + errs.String(); got != want {
			t.Errorf("printed %q, want %q", got, want)
		}
	}
}
