package e2e

import (
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
)

// TestCiphers: two nodes agree on a cipher that both accept.
func TestCiphers(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		a, b string
		want api.Cipher
	}{
		{"auto", "auto", aes}, // requires AES instructions, which all CPUs that run tests have
		{chacha, "auto", chacha},
		{"auto", chacha, chacha},
	} {
		t.Run(tt.a+" and "+tt.b, func(t *testing.T) {
			t.Parallel()
			nodes := startWithCiphers(t, tt.a, tt.b)
			pods := reachingPods(t, nodes)
			waitCarried(t, nodes, api.DatapathUserspace, tt.want)
			transferBoth(t, pods, 4<<20)
		})
	}
}

// TestNoCommonCipher: nodes that accept different ciphers only exchange no frames, and both warn about the reason.
func TestNoCommonCipher(t *testing.T) {
	t.Parallel()
	nodes := startWithCiphers(t, aes, chacha)
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p")}
	pods[0].pinging(t, pods[1].addr) // traffic is necessary to start a handshake
	pings := pods[1].pinging(t, pods[0].addr)
	for _, n := range nodes {
		waitWarning(t, n, "--cipher")
	}
	if sent, lost := pings.stop(t); sent-lost > 1 {
		t.Errorf("of %d pings only %d were lost", sent, lost)
	}
	for _, n := range nodes {
		for _, p := range query[[]api.Peer](t, n, "peers") {
			if !p.Self && p.RxFrames > 0 {
				t.Errorf("%s received %d frames from %s", n.Label(), p.RxFrames, p.Name)
			}
		}
	}
}

// startWithCiphers starts two nodes with a common secret and different values of --cipher.
func startWithCiphers(t *testing.T, ciphers ...string) []*cluster.Node {
	t.Helper()
	nodes := newNodes(t, "a", "b")
	secret := newSecret(t)
	for i, n := range nodes {
		writeSecret(t, n, secret)
		upSealed(t, nodes, n, "--cipher", ciphers[i])
	}
	waitReady(t, nodes)
	return nodes
}
