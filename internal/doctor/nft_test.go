package doctor

import "testing"

func TestDroppingChain(t *testing.T) {
	text := []byte(`{"nftables": [{"metainfo": {"version": "1.0.6"}},
		{"chain": {"family": "bridge", "table": "b", "name": "f", "hook": "forward", "policy": "drop"}},
		{"chain": {"family": "ip", "table": "filter", "name": "INPUT", "hook": "input", "policy": "accept"}},
		{"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "hook": "forward", "policy": "drop"}},
		{"chain": {"family": "ip", "table": "filter", "name": "DOCKER"}}]}`)
	for hook, want := range map[string]string{"forward": "chain FORWARD of table ip filter", "input": ""} {
		if got := droppingChain(text, hook); got != want {
			t.Errorf("%s: %q, want %q", hook, got, want)
		}
	}
	if got := droppingChain([]byte("not JSON"), "input"); got != "" {
		t.Errorf("of text that is not JSON: %q", got)
	}
}
