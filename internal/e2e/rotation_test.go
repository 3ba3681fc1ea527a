package e2e

import (
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestRotation: a cluster goes from one secret to the next under traffic, node by node, by way of files with both. Then the
// old one opens nothing, the new one does, and no log has either.
func TestRotation(t *testing.T) {
	nodes := newNodes(t, "a", "b", "c")
	older, newer := newSecret(t), newSecret(t)
	startSealed(t, nodes, older)
	pods := reachingPods(t, nodes)
	waitCarried(t, nodes[:2], "userspace", aes)
	ping := pods[0].pinging(t, pods[1].addr)
	ping.goesOn(t, 15)
	for _, file := range [][]string{{newer, older}, {newer}} {
		for _, n := range nodes {
			writeSecret(t, n, file...)
			do(t, n, "reload")
			waitReady(t, nodes)
			waitCarried(t, nodes[:2], "userspace", aes)
			ping.goesOn(t, 15)
		}
	}
	ping.steady(t)

	// What a node has in its file now is what the others take.
	nodes[2].Process().Kill()
	upSealed(t, nodes, nodes[2])
	waitReady(t, nodes)

	late := cluster.NewNode(labtest.AddHost(t, nodes[0].Lab(), "late"), bin)
	writeSecret(t, late, older)
	upSealed(t, append(nodes, late), late)
	waitWarning(t, late, "secret")
	for _, p := range query[[]api.Peer](t, nodes[0], "peers") {
		if p.Name == late.Label() && p.State == "alive" {
			t.Error("a node with the old secret has joined")
		}
	}
	if n := query[api.Status](t, late, "status").Peers["alive"]; n != 1 {
		t.Errorf("the node with the old secret sees %d alive", n)
	}
	waitReady(t, nodes)
	for _, n := range append(nodes, late) {
		for _, secret := range []string{older, newer} {
			if strings.Contains(n.Process().Logs(), strings.Fields(secret)[1]) {
				t.Errorf("a secret is in the log of %s", n.Label())
			}
		}
	}
}

// TestPassphrase: a line that a person made up is a secret too.
func TestPassphrase(t *testing.T) {
	nodes := newNodes(t, "a", "b")
	const passphrase = "correct horse battery staple"
	startSealed(t, nodes, passphrase)
	reachingPods(t, nodes)
	waitCarried(t, nodes, "userspace", aes)
	for _, n := range nodes {
		if strings.Contains(n.Process().Logs(), passphrase) {
			t.Errorf("the passphrase is in the log of %s", n.Label())
		}
	}
}
