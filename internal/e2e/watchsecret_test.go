package e2e

import (
	"fmt"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/labtest"
)

// TestWatchSecret: with --watch-secret a node uses a new secret file without "weft reload".
func TestWatchSecret(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	first, second := newSecret(t), newSecret(t)
	for _, n := range nodes {
		writeSecret(t, n, first)
		upSealed(t, nodes, n, "--watch-secret")
	}
	waitReady(t, nodes)
	secrets := func(want int, droppable bool) {
		t.Helper()
		for _, n := range nodes {
			labtest.Until(t, patience, func() error {
				if s := query[api.Status](t, n, "status"); s.Secrets != want || s.Droppable != droppable {
					return fmt.Errorf("%s has %d secrets, droppable %v", n.Label(), s.Secrets, s.Droppable)
				}
				return nil
			})
		}
	}
	secrets(1, false)
	for _, n := range nodes {
		writeSecret(t, n, second, first)
	}
	secrets(2, true)
	for _, n := range nodes {
		writeSecret(t, n, second)
	}
	secrets(1, false)
	attach(t, nodes[0], "p").reaches(t, attach(t, nodes[1], "p").addr)
}
