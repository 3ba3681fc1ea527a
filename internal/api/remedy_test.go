package api

import (
	"slices"
	"testing"
)

func TestCommands(t *testing.T) {
	for remedy, want := range map[string][]string{
		"": nil,
		"Start it again, or if it will not return run \"weft reclaim a1\".":              {"weft reclaim a1"},
		"Run \"ip link set a master b\", or \"weft leave --now\"; then \"ip a\".":        {"ip link set a master b", "weft leave --now", "ip a"},
		"Run \"weft wait\" until the node \"b\" is back, then \"weft wait\" once again.": {"weft wait"},
		"Name it \"web\", without the \"Capital word\".":                                 nil,
	} {
		if got := Commands(remedy); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", remedy, got, want)
		}
	}
}
