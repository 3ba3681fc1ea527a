package e2e

import (
	"fmt"
	"strings"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestEntropyPort: with two queues, flows leave from two further ports while the other node receives them from there. A
// firewall that begins to drop them costs some seconds, and the endpoint of the peer stays.
func TestEntropyPort(t *testing.T) {
	t.Parallel()
	nodes, pods := sealedPair(t, "--queues", "2", "--source-ports", "flow")
	proven := func(want string) {
		t.Helper()
		labtest.Until(t, patience, func() error {
			if err := transfer(testContext(t), pods[0], pods[1], 1<<20); err != nil { // each connection may have another port
				return err
			}
			if got := entropyPorts(t, nodes[0]); got != want {
				return fmt.Errorf("the peer has %q entropy ports, want %q", got, want)
			}
			return nil
		})
	}
	proven("2")
	blockEntropyPorts(t, nodes[1])
	transferBoth(t, pods, 4<<20)
	proven("0")
	transferBoth(t, pods, 4<<20)
	for _, p := range query[[]api.Peer](t, nodes[1], "peers") {
		if p.Addr.Port() != 6784 {
			t.Errorf("%s is at %s", p.Name, p.Addr)
		}
	}
}

// entropyPorts returns the number of entropy ports that the only peer of the node is sent frames from, in digits.
func entropyPorts(t *testing.T, n *cluster.Node) string {
	t.Helper()
	for line := range strings.Lines(labtest.Run(t, n.Space, "curl", "-s", "http://127.0.0.1:6782/metrics")) {
		if strings.HasPrefix(line, "weft_peer_entropy_ports{") {
			return line[strings.LastIndexByte(line, ' ')+1 : len(line)-1]
		}
	}
	return ""
}

// blockEntropyPorts makes the node's host drop what arrives at its data port from other ports than data ports.
func blockEntropyPorts(t *testing.T, n *cluster.Node) {
	t.Helper()
	nft := n.Command(testContext(t), "nft", "-f", "-")
	nft.Stdin = strings.NewReader(`table inet strict {
		chain in {
			type filter hook input priority -10;
			udp dport 6784 udp sport != 6784 drop
		}
	}`)
	if out, err := nft.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}
