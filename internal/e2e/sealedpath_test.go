package e2e

import (
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestSealedTransfers: TCP streams arrive unchanged through encryption, over IPv4 and IPv6, and packets of the full MTU
// pass.
func TestSealedTransfers(t *testing.T) {
	for _, tt := range []struct {
		name string
		six  bool
		mtu  int
		args []string
	}{
		{"IPv4", false, 1422, nil},
		{"IPv4, no offload", false, 1422, []string{"--offload", "off"}},
		{"IPv4, four queues", false, 1422, []string{"--queues", "4"}},
		{"IPv6", true, 1402, nil},
		{"IPv6, no offload", true, 1402, []string{"--offload", "off"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nodes := newNodes(t, "a", "b")
			if tt.six {
				startSealed6(t, nodes, tt.args...)
			} else {
				startSealed(t, nodes, newSecret(t), tt.args...)
			}
			pods := reachingPods(t, nodes)
			for i, n := range nodes {
				if mtu := query[api.Status](t, n, "status").MTU; mtu != tt.mtu {
					t.Errorf("%s has MTU %d, want %d", n.Label(), mtu, tt.mtu)
				}
				labtest.Until(t, patience, func() error { return pingWhole(t, pods[i], pods[1-i], tt.mtu) })
			}
			transferBoth(t, pods, 16<<20)
		})
	}
}

// startSealed6 starts two nodes with a secret on the IPv6 underlay.
func startSealed6(t *testing.T, nodes []*cluster.Node, args ...string) {
	t.Helper()
	secret := newSecret(t)
	for i, n := range nodes {
		writeSecret(t, n, secret)
		own := []string{"--secret-file", secretFile(n), "--advertise", n.Addr6().String(), "[" + nodes[1-i].Addr6().String() + "]"}
		up(t, n, append(own, args...)...)
	}
	waitReady(t, nodes)
}

// TestSealedTransfersWithLoss: a lost encrypted datagram loses one segment only.
func TestSealedTransfersWithLoss(t *testing.T) {
	nodes, pods := sealedPair(t)
	disableBatching(t, nodes)
	for _, n := range nodes {
		lose(t, n, 10)
	}
	transferBoth(t, pods, 16<<20)
}

// TestSealedPathShrinks is TestPathShrinks with a secret.
func TestSealedPathShrinks(t *testing.T) {
	nodes, pods := sealedPair(t)
	shrink(t, nodes, pods, shrunk-78)
}
