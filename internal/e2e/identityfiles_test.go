package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestIdentityFiles: nodes trust the CAs of --identity-ca, certificates hold at the addresses of "weft ca sign --addresses" only, and a
// list of "weft revoke --out" is handed to a node by --list.
func TestIdentityFiles(t *testing.T) {
	t.Parallel()
	nodes := newNodes(t, "a", "b", "c")
	dir := t.TempDir()
	ca, cas, list := filepath.Join(dir, "ca"), filepath.Join(dir, "cas"), filepath.Join(dir, "list")
	line := do(t, nodes[0], "ca", "init", "--dir", ca)
	if err := os.WriteFile(cas, []byte(line+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i, n := range nodes {
		addresses := n.Addr().String() + "/32"
		if i == 2 {
			addresses = "198.51.100.0/24" // it is not there
		}
		signIdentity(t, n, ca, "--addresses", addresses)
		up(t, n, append([]string{"--identity", identityFile(n), "--identity-ca", cas}, others(nodes[:2], n)...)...)
	}
	waitNetwork(t, nodes[:2], api.NetworkIdentities, true)
	if err := nodes[2].Process().Wait(); cluster.ExitCode(err) != 2 || !strings.Contains(nodes[2].Process().Logs(), "198.51.100.0/24") {
		t.Errorf("a node at another address than its certificate says: %v: %s", err, nodes[2].Process().Logs())
	}
	do(t, nodes[0], "revoke", "b", "--dir", ca, "--out", list)
	if n := query[api.Status](t, nodes[0], "status").Peers[api.PeerAlive]; n != 2 {
		t.Errorf("after --out %d nodes are alive, want 2", n)
	}
	if r := query[api.RevocationsResult](t, nodes[0], "revoke", "--list", list); !r.Adopted || r.Nodes != 1 { // with --json
		t.Errorf("weft revoke --list: %+v", r)
	}
	labtest.Until(t, patience, func() error {
		for _, p := range query[[]api.Peer](t, nodes[0], "peers") {
			if p.Name == "b" && p.Refused == "revoked" {
				return nil
			}
		}
		return fmt.Errorf("b is not revoked")
	})
}
