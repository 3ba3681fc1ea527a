package settings

import (
	"slices"
	"testing"
)

// TestLogGroups: no port gives a node the log groups of policies in Kubernetes, nor two equal ones.
func TestLogGroups(t *testing.T) {
	for port := 1; port < 65535; port++ {
		c := Config{Port: port}
		direct, pair := c.DirectGroup(), c.PairGroup()
		if slices.Contains(policiesGroups, direct) || slices.Contains(policiesGroups, pair) || direct == pair {
			t.Fatalf("port %d: groups %d and %d", port, direct, pair)
		}
	}
}
