package e2e

import (
	"strings"
	"testing"

	"weft/internal/nettest/cluster"
)

// TestRoaming: from one moment on a node's data comes from another port, as behind a router that has lost its table and
// maps anew. Traffic goes on, also where the old port does not lead to the node any more.
func TestRoaming(t *testing.T) {
	for _, tt := range []struct{ name, old string }{
		{"the old port still works", "accept"},
		{"the old port is dead", "drop"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			nodes, pods := sealedPair(t)
			ping := pods[0].pinging(t, pods[1].addr)
			ping.goesOn(t, 10)
			remap(t, nodes[1], tt.old)
			back := pods[1].pinging(t, pods[0].addr)
			ping.goesOn(t, 20)
			back.goesOn(t, 20)
			bothWays(t, pods, 4<<20)
		})
	}
}

// remap has a node's data come from port 7777, and go to it by that one; old says what becomes of data to the port from before.
// It rewrites by header and not by connection, as tracked ones would keep the port that they have.
func remap(t *testing.T, n *cluster.Node, old string) {
	t.Helper()
	nft := n.Command(testContext(t), "nft", "-f", "-")
	nft.Stdin = strings.NewReader(`table inet router {
		chain out {
			type filter hook output priority -300;
			oifname eth0 udp sport 6784 udp sport set 7777
		}
		chain in {
			type filter hook prerouting priority -300;
			iifname eth0 udp dport 6784 ` + old + `
			iifname eth0 udp dport 7777 udp dport set 6784
		}
	}`)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
