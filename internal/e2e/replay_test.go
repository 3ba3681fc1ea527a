package e2e

import (
	"net/netip"
	"testing"

	"weft/internal/api"
	"weft/internal/nettest/cluster"
	"weft/internal/nettest/labtest"
)

// TestReplay: somebody has captured all that the nodes sent each other, from their first handshake on, and sends it to both
// again, under his own address and under theirs. No frame arrives a second time, and nothing is disturbed.
func TestReplay(t *testing.T) {
	nodes := newNodes(t, "a", "b")
	stranger := labtest.AddHost(t, nodes[0].Lab(), "stranger")
	singly(t, nodes)
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
			if !p.outgoing { // the other host has it already
				all = append(all, p)
			}
		}
	}
	heard := datagrams(all, dataPort)
	if n := byType(all); n[sealedFrame] < 400 || n[initiation] == 0 || n[response] == 0 {
		t.Fatalf("by their first byte, the datagrams of the capture are %v; want frames, an initiation and a response", n)
	}
	ping := pods[0].pinging(t, pods[1].addr)
	ping.goesOn(t, 10)
	dropped := drops(t, nodes)
	forge, own := newForger(t, stranger), netip.AddrPortFrom(stranger.Addr(), dataPort)
	for _, forged := range []bool{false, true} {
		for _, d := range heard {
			for i, n := range nodes {
				from := own
				if forged {
					// Where it was this node itself that sent it, its peer is who gives it back.
					from = netip.AddrPortFrom(nodes[1-i].Addr(), d.from.Port())
				}
				forge.send(t, from, netip.AddrPortFrom(n.Addr(), dataPort), d.payload)
			}
		}
		for _, n := range nodes {
			waitEmpty(t, n)
		}
		ping.goesOn(t, 10)
	}
	if n := drops(t, nodes) - dropped; n < uint64(len(heard)) {
		t.Errorf("only %d of %d datagrams that were sent again were counted as dropped", n, 4*len(heard))
	}
	for _, s := range streams {
		s.send(t, 200)
		s.once(t)
	}
	ping.steady(t)
}

// drops returns how much nodes have dropped, for whatever reason.
func drops(t *testing.T, nodes []*cluster.Node) (sum uint64) {
	t.Helper()
	for _, n := range nodes {
		for _, count := range query[api.Status](t, n, "status").Drops {
			sum += count
		}
	}
	return sum
}
