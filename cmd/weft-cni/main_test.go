package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestLinksNoEngine: the plugin is a client of the daemon and links none of its engines. It stays small, because the
// runtime starts it for every container.
func TestLinksNoEngine(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.FieldsSeq(string(out)) {
		for _, engine := range []string{"weft/router", "weft/mesh", "weft/ipam", "weft/tap", "weft/internal/daemon"} {
			if dep == engine || strings.HasPrefix(dep, engine+"/") {
				t.Errorf("weft-cni links %s", dep)
			}
		}
	}
}
