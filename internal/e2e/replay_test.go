package e2e

import (
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestReplay: an attacker has captured all datagrams between two nodes since their first handshake, and sends them to both
// again, with its own source address and with theirs. No frame arrives a second time, and traffic is not disturbed.
func TestReplay(t *testing.T) {
	nodes := newNodes(t, "a", "b")
	attacker := labtest.AddHost(t, nodes[0].Lab(), "attacker")
	disableBatching(t, nodes)
	captures := captureUnderlay(t, nodes...)
	startSealed(t, nodes, newSecret(t))
	pods := reachingPods(t, nodes)
	streams := []*numbers{newNumbers(t, pods[0], pods[1]), newNumbers(t, pods[1], pods[0])}
	for _, s := range streams {
		s.send(t, 200)
	}

	var all []packet
	for _, c := range captures {
		for _, p := range c.packets(t) {
			if !p.outgoing { // the capture of the other host has outgoing packets
				all = append(all, p)
			}
		}
	}
	captured := datagrams(all, dataPort)
	if n := byType(all); n[sealedFrame] < 400 || n[initiation] == 0 || n[response] == 0 {
		t.Fatalf("the captured datagrams, by their first byte, are %v; want frames, an initiation and a response", n)
	}
	ping := pods[0].pinging(t, pods[1].addr)
	ping.waitReplies(t, 10)
	dropped := drops(t, nodes)
	forge, own := newForger(t, attacker), netip.AddrPortFrom(attacker.Addr(), dataPort)
	for _, forged := range []bool{false, true} {
		for _, d := range captured {
			for i, n := range nodes {
				from := own
				if forged {
					// Also for datagrams that this node itself sent: they seem to come from its peer.
					from = netip.AddrPortFrom(nodes[1-i].Addr(), d.from.Port())
				}
				forge.send(t, from, netip.AddrPortFrom(n.Addr(), dataPort), d.payload)
			}
		}
		for _, n := range nodes {
			waitEmpty(t, n)
		}
		ping.waitReplies(t, 10)
	}
	if n := drops(t, nodes) - dropped; n < uint64(len(captured)) {
		t.Errorf("only %d of %d replayed datagrams were counted as dropped", n, 4*len(captured))
	}
	for _, s := range streams {
		s.send(t, 200)
		s.once(t)
	}
	ping.steady(t)
}

// drops returns the sum of all drop counters of the nodes.
func drops(t *testing.T, nodes []*cluster.Node) (sum uint64) {
	t.Helper()
	for _, n := range nodes {
		for _, count := range query[api.Status](t, n, "status").Drops {
			sum += count
		}
	}
	return sum
}
