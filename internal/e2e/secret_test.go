package e2e

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// Names of ciphers in flags and output.
const (
	aes    = "aes-256-gcm"
	chacha = "chacha20-poly1305"
)

// newSecret returns the output of "weft secret generate".
func newSecret(t *testing.T) string {
	t.Helper()
	secret, err := cluster.GenerateSecret(testContext(t), bin)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

// secretKey returns the decoded bytes of a generated secret.
func secretKey(t *testing.T, secret string) []byte {
	t.Helper()
	_, text, _ := strings.Cut(secret, " ")
	key, err := base64.StdEncoding.DecodeString(text)
	if err != nil || len(key) != 32 {
		t.Fatalf("a secret of %d bytes, %v; want 32", len(key), err)
	}
	return key
}

// secretFile returns the path of a node's secret file.
func secretFile(n *cluster.Node) string { return filepath.Join(n.Dir(), "secret") }

// writeSecret writes a node's secret file, with one line per secret. The daemon reads it at the start and at a reload.
func writeSecret(t *testing.T, n *cluster.Node, secrets ...string) {
	t.Helper()
	if err := os.WriteFile(secretFile(n), []byte(strings.Join(secrets, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
}

// upSealed starts n with its present secret file and with the other nodes as peers, and does not wait until it is ready.
func upSealed(t *testing.T, nodes []*cluster.Node, n *cluster.Node, args ...string) {
	t.Helper()
	up(t, n, append(append([]string{"--secret-file", secretFile(n)}, args...), others(nodes, n)...)...)
}

// startSealed is start with a secret.
func startSealed(t *testing.T, nodes []*cluster.Node, secret string, args ...string) {
	t.Helper()
	for _, n := range nodes {
		writeSecret(t, n, secret)
		upSealed(t, nodes, n, args...)
	}
	waitReady(t, nodes)
}

// sealedPair is pair with a secret.
func sealedPair(t *testing.T, args ...string) (nodes []*cluster.Node, pods []*pod) {
	t.Helper()
	nodes = newNodes(t, "a", "b")
	startSealed(t, nodes, newSecret(t), args...)
	return nodes, reachingPods(t, nodes)
}

// reachingPods attaches a pod to the first two nodes and waits until the pods reach each other.
func reachingPods(t *testing.T, nodes []*cluster.Node) []*pod {
	t.Helper()
	pods := []*pod{attach(t, nodes[0], "p"), attach(t, nodes[1], "p")}
	pods[0].reaches(t, pods[1].addr)
	pods[1].reaches(t, pods[0].addr)
	return pods
}

// waitCarried waits until two nodes use the given datapath and cipher for each other; an empty cipher means no encryption.
func waitCarried(t *testing.T, nodes []*cluster.Node, datapath api.Datapath, cipher api.Cipher) {
	t.Helper()
	for i, n := range nodes {
		to := nodes[1-i].Label()
		labtest.Until(t, patience, func() error {
			for _, p := range query[[]api.Peer](t, n, "peers") {
				if p.Name != to {
					continue
				}
				if p.Datapath == datapath && p.Cipher == cipher && p.Encrypted == (cipher != "") {
					return nil
				}
				return fmt.Errorf("the datapath of %s to %s is %s, encrypted %t, cipher %q; want %s, cipher %q",
					n.Label(), to, p.Datapath, p.Encrypted, p.Cipher, datapath, cipher)
			}
			return fmt.Errorf("%s does not know %s", n.Label(), to)
		})
	}
}

// waitWarning waits until a node has a warning that contains words; upper and lower case are the same.
func waitWarning(t *testing.T, n *cluster.Node, words string) {
	t.Helper()
	labtest.Until(t, patience, func() error {
		var s api.Status
		if err := n.Query(testContext(t), &s, "status"); err != nil { // the daemon may not answer yet
			return err
		}
		for _, w := range s.Warnings {
			if strings.Contains(strings.ToLower(w), strings.ToLower(words)) {
				return nil
			}
		}
		return fmt.Errorf("the warnings of %s are %q; want one with %q", n.Label(), s.Warnings, words)
	})
}
