package e2e

import (
	"strings"
	"testing"

	"weft/internal/nettest/cluster"
)

// TestRoaming: the source port of a node's datagrams changes, as behind a NAT that has lost its table. Traffic continues,
// also if datagrams to the old port do not reach the node any more.
func TestRoaming(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, old string }{
		{"the old port still works", "accept"},
		{"the old port is dead", "drop"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			nodes, pods := sealedPair(t)
			ping := pods[0].pinging(t, pods[1].addr)
			ping.waitReplies(t, 10)
			remap(t, nodes[1], tt.old)
			back := pods[1].pinging(t, pods[0].addr)
			ping.waitReplies(t, 20)
			back.waitReplies(t, 20)
			transferBoth(t, pods, 4<<20)
		})
	}
}

// remap translates a node's data port to port 7777 in both directions. old is the nftables verdict for datagrams to the
// former port. The rules rewrite headers instead of using NAT, because tracked connections would keep their port.
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
