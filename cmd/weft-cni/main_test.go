package main

import (
	"os/exec"
	"strings"
	"testing"
)

// TestLinksNoEngine keeps the plugin what it is: started for every container, so small, and a client of the daemon.
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
