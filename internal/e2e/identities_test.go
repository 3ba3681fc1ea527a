package e2e

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

func identityFile(n *cluster.Node) string { return filepath.Join(n.Dir(), "identity") }

// configure writes the configuration file of a node, with the credentials that it may use.
func configure(t *testing.T, n *cluster.Node, secret, identity bool) string {
	t.Helper()
	var lines []string
	if secret {
		lines = append(lines, "secret-file: "+secretFile(n))
	}
	if identity {
		lines = append(lines, "identity: "+identityFile(n))
	}
	path := filepath.Join(n.Dir(), "weft.yaml")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// signIdentity writes the identity file of a node, signed by the CA in a folder.
func signIdentity(t *testing.T, n *cluster.Node, ca string, args ...string) {
	t.Helper()
	request := do(t, n, "identity", "request", "--state-dir", n.StateDir(), "--name", n.Label())
	file := do(t, n, append([]string{"ca", "sign", request, "--dir", ca}, args...)...)
	if err := os.WriteFile(identityFile(n), []byte(file+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
}

// waitNetwork waits until nodes are one network of a kind, and all their members have certificates, or none.
func waitNetwork(t *testing.T, nodes []*cluster.Node, kind api.NetworkKind, certified bool) {
	t.Helper()
	waitReady(t, nodes)
	for _, n := range nodes {
		labtest.Until(t, patience, func() error {
			if s := query[api.Status](t, n, "status"); s.Network != kind || !s.Encrypted {
				return fmt.Errorf("%s is in a network of kind %q, encrypted %v, want %q", n.Label(), s.Network, s.Encrypted, kind)
			}
			for _, p := range query[[]api.Peer](t, n, "peers") {
				if !p.Self && p.State == api.PeerAlive && p.Certificate != certified {
					return fmt.Errorf("%s: %s has a certificate: %v", n.Label(), p.Name, p.Certificate)
				}
			}
			return nil
		})
	}
}

// TestIdentities moves a network from a secret to identities during traffic, shuts one node out, and renews a certificate: no ping
// between the others is lost.
func TestIdentities(t *testing.T) {
	nodes := newNodes(t, "a", "b", "c")
	secret, ca := newSecret(t), filepath.Join(t.TempDir(), "ca")
	for _, n := range nodes {
		writeSecret(t, n, secret)
		up(t, n, append([]string{"--config", configure(t, n, true, false)}, others(nodes, n)...)...)
	}
	waitNetwork(t, nodes, api.NetworkSecret, false)
	pods := reachingPods(t, nodes)
	victim := attach(t, nodes[2], "p")
	pods[0].reaches(t, victim.addr)
	ping := pods[0].pinging(t, pods[1].addr)
	ping.waitReplies(t, 15)

	do(t, nodes[0], "ca", "init", "--dir", ca)
	for _, n := range nodes {
		signIdentity(t, n, ca)
		configure(t, n, true, true)
		do(t, n, "reload")
	}
	waitNetwork(t, nodes, api.NetworkBoth, true)
	ping.waitReplies(t, 20)
	for _, n := range nodes {
		configure(t, n, false, true)
		do(t, n, "reload")
	}
	waitNetwork(t, nodes, api.NetworkIdentities, true)
	waitCarried(t, nodes[:2], api.DatapathUserspace, aes)
	victim.reaches(t, pods[0].addr)

	do(t, nodes[0], "revoke", "c", "--dir", ca)
	rest := nodes[:2]
	labtest.Until(t, 5*time.Second, func() error {
		for _, n := range rest {
			for _, p := range query[[]api.Peer](t, n, "peers") {
				if p.Name == "c" && (p.State == api.PeerAlive || p.Refused != "revoked") {
					return fmt.Errorf("%s: c is %s, refused: %q", n.Label(), p.State, p.Refused)
				}
			}
		}
		if cluster.Ping(testContext(t), victim.Space, pods[0].addr) == nil {
			return errors.New("a pod of the revoked node reaches the others")
		}
		return nil
	})
	waitWarning(t, nodes[1], "revoked")
	ping.waitReplies(t, 40)
	if sent, lost := ping.stop(t); lost > 0 {
		t.Errorf("%d of %d pings between the other nodes were lost", lost, sent)
	}

	// Neither a restart nor a certificate of another node brings it back, and the others do not forget.
	nodes[2].Process().Kill()
	nodes[1].Process().Kill()
	up(t, nodes[1], append([]string{"--config", configure(t, nodes[1], false, true)}, others(nodes, nodes[1])...)...)
	up(t, nodes[2], append([]string{"--config", configure(t, nodes[2], false, true)}, others(nodes, nodes[2])...)...)
	waitReady(t, rest)
	waitWarning(t, nodes[2], "does not admit this one, which is revoked")
	if n := query[api.Status](t, nodes[2], "status").Peers[api.PeerAlive]; n != 1 {
		t.Errorf("the revoked node sees %d nodes alive", n)
	}
	if s := query[api.Status](t, nodes[1], "status"); s.Identity.CAs[0].ListVersion != 1 || s.Identity.CAs[0].Revoked != 1 {
		t.Errorf("after a restart the list is %v", s.Identity.CAs)
	}
	pods[0].reaches(t, pods[1].addr)
	if _, err := nodes[2].Do(testContext(t), "ca", "sign", do(t, nodes[2], "identity", "request", "--state-dir", nodes[2].StateDir(),
		"--name", "c"), "--dir", ca); err == nil {
		t.Error("a revoked key was signed again")
	}

	// Its addresses go to another node, although it still runs.
	if list := query[[]api.Reclaimed](t, nodes[0], "reclaim", "c"); len(list) != 1 || list[0].Name != "c" { // with --json
		t.Errorf("weft reclaim: %+v", list)
	}
	labtest.Until(t, patience, func() error { return sameOwners(t, rest, len(rest)) })

	// Certificates are renewed by reload.
	signIdentity(t, nodes[1], ca, "--expires", "1m")
	do(t, nodes[1], "reload")
	waitNetwork(t, rest, api.NetworkIdentities, true)
	signIdentity(t, nodes[1], ca)
	if out := do(t, nodes[1], "reload"); !strings.Contains(out, "--identity") {
		t.Errorf("reload: %q", out)
	}
	waitNetwork(t, rest, api.NetworkIdentities, true)
}
