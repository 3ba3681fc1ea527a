package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestRotation: a cluster changes its secret during traffic, with files that have both secrets for a while, by command and
// by signal. Afterwards only the new secret is accepted, and no log contains either.
func TestRotation(t *testing.T) {
	nodes := newNodes(t, "a", "b", "c")
	older, newer := newSecret(t), newSecret(t)
	startSealed(t, nodes, older)
	pods := reachingPods(t, nodes)
	waitCarried(t, nodes[:2], api.DatapathUserspace, aes)
	ping := pods[0].pinging(t, pods[1].addr)
	ping.waitReplies(t, 15)
	// The test does not wait between the nodes: until the last one has the new secret, it shares only the old one with the
	// others.
	for _, n := range nodes {
		writeSecret(t, n, newer, older)
		do(t, n, "reload")
	}
	waitReady(t, nodes)
	ping.waitReplies(t, 40)
	for _, n := range nodes {
		writeSecret(t, n, newer)
		if err := n.Process().Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	waitReady(t, nodes)
	ping.waitReplies(t, 40)
	ping.steady(t)
	waitCarried(t, nodes[:2], api.DatapathUserspace, aes)

	// The others accept a node that starts with the new file.
	nodes[2].Process().Kill()
	upSealed(t, nodes, nodes[2])
	waitReady(t, nodes)

	late := cluster.NewNode(labtest.AddHost(t, nodes[0].Lab(), "late"), bin)
	writeSecret(t, late, older)
	upSealed(t, append(nodes, late), late)
	waitWarning(t, late, "secret")
	for _, p := range query[[]api.Peer](t, nodes[0], "peers") {
		if p.Name == late.Label() && p.State == api.PeerAlive {
			t.Error("a node with the old secret has joined")
		}
	}
	if n := query[api.Status](t, late, "status").Peers[api.PeerAlive]; n != 1 {
		t.Errorf("the node with the old secret sees %d nodes alive", n)
	}
	waitReady(t, nodes)
	for _, n := range append(nodes, late) {
		for _, secret := range []string{older, newer} {
			requireNotLogged(t, n, strings.Fields(secret)[1], fmt.Sprintf("%x", secretKey(t, secret)))
		}
	}
}

// TestPassphrase: a passphrase works as a secret.
func TestPassphrase(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b")
	const passphrase = "correct horse battery staple"
	startSealed(t, nodes, passphrase)
	reachingPods(t, nodes)
	waitCarried(t, nodes, api.DatapathUserspace, aes)
	for _, n := range nodes {
		requireNotLogged(t, n, passphrase)
	}
}

// requireNotLogged fails the test if the log of a node contains one of texts.
func requireNotLogged(t *testing.T, n *cluster.Node, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if strings.Contains(n.Process().Logs(), text) {
			t.Errorf("a secret is in the log of %s", n.Label())
		}
	}
}

// TestBadSecretFile: an invalid secret file is refused, at the start and at a reload, which then changes nothing.
func TestBadSecretFile(t *testing.T) {
	t.Parallel()
	nodes, pods := sealedPair(t)
	outsider := cluster.NewNode(labtest.AddHost(t, nodes[0].Lab(), "outsider"), bin)
	secret := newSecret(t)
	for _, tt := range []struct {
		name, text string
		mode       os.FileMode
	}{
		{"empty", "", 0o600},
		{"blank", "\n\n", 0o600},
		{"short", "too short\n", 0o600},
		{"not base64", "weft-secret-1 !!!!\n", 0o600},
		{"cut off", secret[:len(secret)-8] + "\n", 0o600},
		{"one good, one bad", secret + "\nshort\n", 0o600},
		{"read by all", secret + "\n", 0o644},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, n := range []*cluster.Node{outsider, nodes[0]} {
				if err := errors.Join(os.WriteFile(secretFile(n), []byte(tt.text), tt.mode), os.Chmod(secretFile(n), tt.mode)); err != nil {
					t.Fatal(err)
				}
			}
			refused(t, outsider, nil, "--secret-file", "--secret-file", secretFile(outsider))
			out, err := nodes[0].Do(testContext(t), "reload")
			if err == nil || !strings.Contains(out, secretFile(nodes[0])) && !strings.Contains(out, "--secret-file") {
				t.Errorf("weft reload: %q, %v; want a refusal that names the file", out, err)
			}
			requireNotLogged(t, nodes[0], strings.Fields(secret)[1])
		})
	}
	pods[0].reaches(t, pods[1].addr)
	waitReady(t, nodes)
	waitCarried(t, nodes, api.DatapathUserspace, aes)
}
