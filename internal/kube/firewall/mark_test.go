package firewall

import (
	"maps"
	"testing"

	"weft/internal/kube/policy"
)

// TestAssign: chains keep their numbers, new ones get the lowest free ones, and chains beyond the last number have none.
func TestAssign(t *testing.T) {
	for name, c := range map[string]struct {
		chains []string
		old    map[string]int
		want   map[string]int
	}{
		"none":    {nil, map[string]int{"a": 1}, map[string]int{}},
		"first":   {[]string{"a", "b"}, nil, map[string]int{"a": 1, "b": 2}},
		"kept":    {[]string{"a", "b", "d"}, map[string]int{"b": 1, "c": 2, "d": 3}, map[string]int{"a": 2, "b": 1, "d": 3}},
		"too few": {[]string{"a", "b", "c", "d"}, map[string]int{"d": 3}, map[string]int{"a": 1, "b": 2, "d": 3}},
	} {
		if got := assign(c.chains, c.old, 3); !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// TestMarks: the fields of the mark do not overlap each other or the marks of kube-proxy.
func TestMarks(t *testing.T) {
	const kubeProxy = 0xc000
	seen := kubeProxy
	for _, bits := range []int{unjudged, routed, fieldOf(policy.Ingress).mask, fieldOf(policy.Egress).mask} {
		if seen&bits != 0 || bits == 0 {
			t.Errorf("%#x overlaps %#x", bits, seen)
		}
		seen |= bits
	}
	if seen != allMarks|kubeProxy {
		t.Errorf("allMarks is %#x", allMarks)
	}
}
