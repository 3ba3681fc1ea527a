package e2e

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"weft/internal/health"
	"weft/internal/nettest/labtest"
)

// TestSourceCheck: a pod on b sends with an address of a's own part of the range. By default a delivers the frames and reports b; a
// node that enforces drops them, and other frames of the pod pass.
func TestSourceCheck(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	secret := newSecret(t)
	for _, n := range nodes {
		writeSecret(t, n, secret)
	}
	upSealed(t, nodes, nodes[0], "--source-check", "log")
	upSealed(t, nodes, nodes[1])
	upSealed(t, nodes, nodes[2], "--source-check", "enforce")
	waitReady(t, nodes)
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p"), attach(t, nodes[2], "p")}
	spoofed := pods[0].addr
	for range 20 {
		spoofed = spoofed.Next()
	}
	for _, to := range []*pod{pods[0], pods[2]} {
		pods[1].reaches(t, to.addr) // and learns its MAC
	}
	labtest.Run(t, pods[1].Space, "ip", "addr", "add", spoofed.String()+"/32", "dev", "eth0")
	spoof := func(to *pod) {
		_, _ = pods[1].Run(testContext(t), "ping", "-n", "-c", "1", "-W", "1", "-I", spoofed.String(), to.addr.String())
	}
	labtest.Until(t, patience, func() error {
		spoof(pods[0])
		if found := conditions(t, nodes[0], health.ForeignSource); len(found) != 1 || !strings.Contains(found[0].Text, spoofed.String()) {
			return fmt.Errorf("conditions of a: %+v", found)
		}
		return nil
	})
	labtest.Until(t, patience, func() error { // the answer: the frames were delivered
		return ping(t, pods[1], pods[0], spoofed.String())
	})
	labtest.Until(t, patience, func() error {
		spoof(pods[2])
		if metrics := labtest.Run(t, nodes[2].Space, "curl", "-s", "http://127.0.0.1:6782/metrics"); strings.Contains(
			metrics, `weft_drops_total{reason="foreign_source"} 0`) {
			return errors.New("c drops nothing")
		}
		return nil
	})
	if err := ping(t, pods[1], pods[2], spoofed.String()); err == nil {
		t.Error("c delivered a frame from an address that a gives out")
	}
	pods[1].reaches(t, pods[2].addr)
}

// ping sends one ping from an address of a pod to another pod.
func ping(t *testing.T, from, to *pod, source string) error {
	t.Helper()
	_, err := from.Run(testContext(t), "ping", "-n", "-c", "1", "-W", "1", "-I", source, to.addr.String())
	return err
}
