package e2e

import (
	"fmt"
	"strings"
	"testing"

	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestTakeOver: a second daemon with --take-over waits until the first one stops, and goes on with its pods.
func TestTakeOver(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	start(t, nodes, "--take-over")
	p, q := attach(t, nodes[0], "p"), attach(t, nodes[1], "p")
	p.reaches(t, q.addr)
	old := nodes[0].Process()
	up(t, nodes[0], append([]string{"--take-over"}, others(nodes, nodes[0])...)...)
	p.reaches(t, q.addr)
	do(t, nodes[0], "wait", "--for", "peers=2") // the first one answers
	select {
	case <-old.Done():
		t.Fatal("the first daemon ended by itself")
	case <-nodes[0].Process().Done():
		t.Fatal("the second daemon ended by itself")
	default:
	}
	if err := old.Stop(cluster.Grace); err != nil {
		t.Fatal(err)
	}
	labtest.Until(t, patience, func() error {
		if logs := nodes[0].Process().Logs(); !strings.Contains(logs, "node is up") {
			return fmt.Errorf("the second daemon has not taken over: %s", logs)
		}
		return nil
	})
	waitReady(t, nodes)
	p.reaches(t, q.addr)
	attach(t, nodes[0], "late").reaches(t, q.addr)
}
