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
		"/v1/names?name=web": []api.Name{},
		"/v1/names?name=wep": []api.Name{},
		"/v1/names":          []api.Name{{Name: "web", IP: netip.MustParseAddr("10.32.0.9"), NodeName: "host3"}},
	})
	for name, want := range map[string]string{
		"web": "weft: \"web\" is a name of node host3, which is not alive\n" +
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
